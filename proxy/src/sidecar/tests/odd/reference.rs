//! A slow and strict reader of requests, to judge what proxies hand on.

/// A request as its server sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    /// Names in lower case, in the order in which they came.
    pub fields: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
}

/// What some bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Not yet anything whole.
    Part,
    /// Nothing that RFC 9112 allows, and what is wrong with it.
    Flaw(&'static str),
    /// A request, and how many bytes it has.
    Whole(Request, usize),
}

type Flaw<T> = Result<T, &'static str>;

/// Reads one request.
pub fn read(bytes: &[u8]) -> Read {
    match request(bytes) {
        Ok(Some((request, len))) => Read::Whole(request, len),
        Ok(None) => Read::Part,
        Err(flaw) => Read::Flaw(flaw),
    }
}

/// The requests in `bytes`, and what is wrong with the rest, if anything is.
pub fn read_all(mut bytes: &[u8]) -> (Vec<Request>, Option<&'static str>) {
    let mut requests = Vec::new();
    while !bytes.is_empty() {
        match read(bytes) {
            Read::Part => return (requests, Some("unfinished")),
            Read::Flaw(flaw) => return (requests, Some(flaw)),
            Read::Whole(request, len) => {
                requests.push(request);
                bytes = &bytes[len..];
            }
        }
    }
    (requests, None)
}

fn request(bytes: &[u8]) -> Flaw<Option<(Request, usize)>> {
    let Some((head, mut at)) = lines(bytes, 0)? else { return Ok(None) };
    let (first, fields) = head.split_first().ok_or("empty line first")?;
    let (method, target, version) = request_line(first)?;
    let fields = fields.iter().map(|line| field(line)).collect::<Flaw<Vec<_>>>()?;
    let hosts: Vec<_> = all(&fields, "host").collect();
    match hosts[..] {
        [] if version == "HTTP/1.0" => {}
        [] => return Err("no host"),
        [host] if !host.bytes().all(is_of_authority) => return Err("invalid host"),
        [_] => {}
        _ => return Err("several hosts"),
    }
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    match framing(&version, &fields)? {
        Framing::Length(length) => {
            let Some(end) = at.checked_add(length).filter(|end| *end <= bytes.len()) else { return Ok(None) };
            body.extend_from_slice(&bytes[at..end]);
            at = end;
        }
        Framing::Chunks => loop {
            let Some((line, after)) = line(bytes, at)? else { return Ok(None) };
            let size = chunk_size(line)?;
            if size == 0 {
                let Some((lines, end)) = lines(bytes, after)? else { return Ok(None) };
                trailers = lines.iter().map(|line| field(line)).collect::<Flaw<Vec<_>>>()?;
                at = end;
                break;
            }
            let Some(end) = after.checked_add(size).filter(|end| end + 2 <= bytes.len()) else { return Ok(None) };
            body.extend_from_slice(&bytes[after..end]);
            if &bytes[end..end + 2] != b"\r\n" {
                return Err("no line end after a chunk");
            }
            at = end + 2;
        },
    }
    Ok(Some((Request { method, target, version, fields, body: text(&body), trailers }, at)))
}

enum Framing {
    Length(usize),
    Chunks,
}

fn framing(version: &str, fields: &[(String, String)]) -> Flaw<Framing> {
    let codings: Vec<_> = all(fields, "transfer-encoding").collect();
    let lengths: Vec<_> = all(fields, "content-length").collect();
    match (&codings[..], &lengths[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([], [length]) => {
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            length.parse().ok().filter(|_| digits).map(Framing::Length).ok_or("invalid length")
        }
        ([], _) => Err("several lengths"),
        (_, [_, ..]) => Err("length and transfer coding"),
        _ if version == "HTTP/1.0" => Err("transfer coding in HTTP/1.0"),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunks),
        _ => Err("transfer coding other than chunked"),
    }
}

fn all<'f>(fields: &'f [(String, String)], name: &'f str) -> impl Iterator<Item = &'f str> {
    fields.iter().filter(move |(one, _)| one == name).map(|(_, value)| value.as_str())
}

/// Lines to an empty one, and where they end.
type Lines<'b> = (Vec<&'b [u8]>, usize);

fn lines(bytes: &[u8], mut at: usize) -> Flaw<Option<Lines<'_>>> {
    let mut lines = Vec::new();
    while let Some((line, after)) = line(bytes, at)? {
        at = after;
        if line.is_empty() {
            return Ok(Some((lines, at)));
        }
        lines.push(line);
    }
    Ok(None)
}

fn line(bytes: &[u8], at: usize) -> Flaw<Option<(&[u8], usize)>> {
    let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    match bytes[at..at + end].strip_suffix(b"\r") {
        Some(line) if line.contains(&b'\r') => Err("CR within a line"),
        Some(line) => Ok(Some((line, at + end + 1))),
        None => Err("LF without CR"),
    }
}

fn request_line(line: &[u8]) -> Flaw<(String, String, String)> {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return Err("request line without three parts") };
    if !is_token(method) {
        return Err("invalid method");
    }
    if target.is_empty() || !target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err("invalid target");
    }
    let form = match target {
        b"*" => method == b"OPTIONS",
        _ if method == b"CONNECT" => target[0] != b'/',
        [b'/', ..] => true,
        _ => {
            let rest = target.strip_prefix(b"http://").or(target.strip_prefix(b"https://")).unwrap_or_default();
            rest.first().is_some_and(u8::is_ascii_alphanumeric) && !rest.contains(&b'@')
        }
    };
    match version {
        _ if !form => Err("invalid target"),
        b"HTTP/1.1" | b"HTTP/1.0" => Ok((text(method), text(target), text(version))),
        _ => Err("other version"),
    }
}

fn field(line: &[u8]) -> Flaw<(String, String)> {
    if line.first().is_some_and(|byte| b" \t".contains(byte)) {
        return Err("folded line");
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or("field without colon")?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if !is_token(name) {
        return Err("invalid name of a field");
    }
    if !value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)) {
        return Err("control character in a value");
    }
    Ok((text(name).to_ascii_lowercase(), text(value)))
}

fn chunk_size(line: &[u8]) -> Flaw<usize> {
    let (size, extension) = match line.iter().position(|byte| *byte == b';') {
        Some(at) => (&line[..at], &line[at..]),
        None => (line, &line[line.len()..]),
    };
    if !extension.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)) {
        return Err("control character in a chunk extension");
    }
    let digits = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
    usize::from_str_radix(&text(size), 16).ok().filter(|_| digits).ok_or("invalid size of a chunk")
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// No user, no path: RFC 9110, section 7.2.
fn is_of_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(&byte)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
