//! Requests that are spoiled in one way or two.

/// A request in pieces.
#[derive(Clone)]
pub struct Draft {
    pub before: Vec<u8>,
    pub line: Vec<u8>,
    pub fields: Vec<Vec<u8>>,
    pub end_of_line: &'static [u8],
    pub body: Vec<u8>,
}

/// One way to spoil a request.
#[derive(Clone, Copy)]
pub enum Change {
    /// Another request line; `METHOD` stands for the method.
    Line(&'static str),
    /// Something before the request line.
    Before(&'static str),
    /// One more field.
    Add(&'static str),
    /// One more field before all others.
    First(&'static str),
    /// One more field, whose value is made of many letters.
    Long(usize),
    /// Many more fields.
    Many(usize),
    /// A target of many letters.
    LongTarget(usize),
    /// Another line in place of the field of this name.
    Replace(&'static str, &'static str),
    /// The field of this name is not there.
    Remove(&'static str),
    /// Another body, for requests whose body comes in chunks.
    Chunks(&'static str),
    /// Another end of each line.
    EndOfLine(&'static str),
}

/// A case: its name, by which changes it was made, and what is sent.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub changes: Vec<&'static str>,
    pub bytes: Vec<u8>,
}

/// What is sent after every case: if it arrives as a request, the one before it has ended where the sender ended it.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n";

fn draft(line: &str, fields: &[&str], body: &str) -> Draft {
    Draft {
        before: Vec::new(),
        line: line.into(),
        fields: fields.iter().map(|field| field.as_bytes().to_vec()).collect(),
        end_of_line: b"\r\n",
        body: body.into(),
    }
}

fn bases() -> [(&'static str, Draft); 4] {
    [
        ("get", draft("GET /a HTTP/1.1", &["Host: store"], "")),
        ("head", draft("HEAD /a HTTP/1.1", &["Host: store"], "")),
        ("post", draft("POST /a HTTP/1.1", &["Host: store", "Content-Length: 5"], "hello")),
        (
            "chunks",
            draft("POST /a HTTP/1.1", &["Host: store", "Transfer-Encoding: chunked"], "5\r\nhello\r\n0\r\n\r\n"),
        ),
    ]
}

impl Draft {
    /// The same with `change`; none if it does not apply.
    fn with(mut self, change: Change) -> Option<Self> {
        let method = || self.line.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec();
        let place = |name: &str| {
            self.fields.iter().position(|field| {
                field.len() > name.len()
                    && field[..name.len()].eq_ignore_ascii_case(name.as_bytes())
                    && field[name.len()] == b':'
            })
        };
        match change {
            Change::Line(line) => self.line = replaced(line, &method()),
            Change::Before(bytes) => self.before = bytes.into(),
            Change::Add(field) => self.fields.push(field.into()),
            Change::First(field) => self.fields.insert(0, field.into()),
            Change::Long(len) => self.fields.push([b"X-Long: ".to_vec(), vec![b'l'; len]].concat()),
            Change::Many(count) => self.fields.extend((0..count).map(|n| format!("X-{n}: {n}").into_bytes())),
            Change::LongTarget(len) => {
                self.line = [method(), b" /".to_vec(), vec![b't'; len], b" HTTP/1.1".to_vec()].concat();
            }
            Change::Replace(name, field) => {
                let at = place(name)?;
                self.fields[at] = field.into();
            }
            Change::Remove(name) => {
                let at = place(name)?;
                self.fields.remove(at);
            }
            Change::Chunks(body) => {
                place("transfer-encoding")?;
                self.body = body.into();
            }
            Change::EndOfLine(end) => self.end_of_line = end.as_bytes(),
        }
        Some(self)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.before.clone();
        for line in std::iter::once(&self.line).chain(&self.fields) {
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(self.end_of_line);
        }
        bytes.extend_from_slice(self.end_of_line);
        bytes.extend_from_slice(&self.body);
        bytes.extend_from_slice(NEXT);
        bytes
    }
}

fn replaced(line: &str, method: &[u8]) -> Vec<u8> {
    match line.split_once("METHOD") {
        Some((before, after)) => [before.as_bytes(), method, after.as_bytes()].concat(),
        None => line.into(),
    }
}

/// Every base with each change, and `pairs` of them with two changes, the same ones each time.
pub fn cases(changes: &[(&'static str, Change)], pairs: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |base: (&str, &Draft), made: &[(&'static str, Change)]| {
        let draft = made.iter().try_fold(base.1.clone(), |draft, (_, change)| draft.with(*change));
        let changes: Vec<_> = made.iter().map(|(name, _)| *name).collect();
        cases.extend(draft.map(|draft| {
            let name = format!("{}: {}", base.0, changes.join(" + "));
            Case { name, changes, bytes: draft.bytes() }
        }));
    };
    let bases = bases();
    for (name, base) in &bases {
        add((name, base), &[]);
        for change in changes {
            add((name, base), std::slice::from_ref(change));
        }
    }
    let mut random = fastrand::Rng::with_seed(9112);
    for _ in 0..pairs {
        let (name, base) = random.choice(&bases).expect("bases");
        let first = random.choice(changes).expect("changes");
        let second = random.choice(changes).expect("changes");
        if first.0 != second.0 {
            add((name, base), &[*first, *second]);
        }
    }
    cases
}
