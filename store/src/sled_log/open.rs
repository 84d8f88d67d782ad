//! Opening a log: whose directory it is, and whether its end is as it was acknowledged.

use std::path::Path;
use std::sync::Arc;

use super::SledLog;
use super::commit::{Committer, End};
use super::durable::Durable;
use super::head::{Head, HeadFile};
use super::place::Place;
use super::salvage;
use super::store::{Store, engine_dir};
use crate::frame::{FrameHash, FrameHeader};
use crate::{Damage, Durability, Error, OnDamage, Options, Seq, Timestamp};

/// The stored log's last intact frame.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    seq: Seq,
    time: Timestamp,
    hash: FrameHash,
}

pub(super) fn open(dir: &Path, options: Options) -> Result<SledLog, Error> {
    let place = Arc::new(Place::take(dir, options.create)?);
    let (head_file, said) =
        HeadFile::open(dir).map_err(|error| Error::io(format!("read {}", dir.join("HEAD").display()), error))?;
    if place.new && said.is_none() {
        begin_anew(dir)?;
    }
    salvage::finish(dir)?;
    let (store, last, head) = match options.on_damage {
        OnDamage::PutAside => repaired(&place, said, &options)?,
        OnDamage::Refuse | OnDamage::ReadIntact => {
            let (mut store, last, found) = look(&place, said, &options)?;
            match found.map(|damage| damaged(dir, damage, last.seq)) {
                None => (store, last, last.head(said)),
                Some(error) if options.on_damage == OnDamage::Refuse => return Err(error),
                Some(error) => {
                    store.damage = Some(error);
                    (store, last, Head::default())
                }
            }
        }
    };

    store.publish_stored(last.seq);
    let store = Arc::new(store);
    let mut durable = Durable::new(head_file, &engine_dir(dir), options.durability)?;
    let refusal = store.damage.as_ref().map(ToString::to_string);
    if refusal.is_none() && said != Some(head) {
        durable.commit(&head)?;
    }
    if place.new {
        place.mark()?;
    }
    let end = End { given: head.given, after_loss: head.given != last.seq, time: last.time, hash: last.hash };
    let committer = Committer::start(Arc::clone(&store), end, durable, options.clock, refusal)?;
    Ok(SledLog { committer, store })
}

/// Puts what is damaged out of the way: frames, and if the engine itself can't be trusted, the engine.
fn repaired(place: &Arc<Place>, mut said: Option<Head>, options: &Options) -> Result<(Store, Last, Head), Error> {
    let (mut put_aside, mut salvaged) = (false, false);
    loop {
        let error = match look(place, said, options) {
            Ok((store, last, None)) => return Ok((store, last, last.head(said))),
            Ok((mut store, last, Some(damage))) => {
                let error = damaged(&place.dir, damage, last.seq);
                if !put_aside {
                    put_aside = true;
                    store.damage = Some(error);
                    match store.put_aside(said) {
                        Ok(head) => {
                            said = Some(head);
                            continue;
                        }
                        Err(error) => error,
                    }
                } else {
                    // An engine that still shows what was removed.
                    error
                }
            }
            Err(error) => error,
        };
        let engine_is_to_blame = put_aside || error.is_engine_damage();
        if salvaged || !engine_is_to_blame {
            return Err(error);
        }
        tracing::warn!("{error}");
        salvage::salvage(place, options.cache_bytes)?;
        (put_aside, salvaged) = (false, true);
    }
}

/// A start that was cut short before anything could be acknowledged may have left half a file of the engine.
fn begin_anew(dir: &Path) -> Result<(), Error> {
    let engine = engine_dir(dir);
    match std::fs::remove_dir_all(&engine) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", engine.display()), error))
        }
        _ => Ok(()),
    }
}

/// Opens the engine, and looks at the end of the log; at all of it if what is damaged is to be put aside.
fn look(place: &Arc<Place>, said: Option<Head>, options: &Options) -> Result<(Store, Last, Option<Damage>), Error> {
    let mut store = Store::open(Arc::clone(place), options.cache_bytes)?;
    store.power = options.durability == Durability::Power;
    let (last, mut found) = check_end(&store, said, place.new)?;
    if found.is_none() && options.on_damage == OnDamage::PutAside {
        found = store.walk(|_| ())?.damages.into_iter().next();
    }
    Ok((store, last, found))
}

impl Last {
    /// What `HEAD` has to say when the log ends here.
    fn head(self, said: Option<Head>) -> Head {
        let given = said.map_or(self.seq, |head| head.given.max(self.seq));
        Head { stored: self.seq, given, hash: self.hash }
    }
}

fn damaged(dir: &Path, damage: Damage, kept: Seq) -> Error {
    Error::Damaged { dir: dir.into(), damage, kept }
}

/// Checks the last frame, its link to the one before it, and that `HEAD` doesn't know of more. Gives the last record that can be used.
fn check_end(store: &Store, said: Option<Head>, new: bool) -> Result<(Last, Option<Damage>), Error> {
    let floor = store.floor()?;
    let before_all =
        floor.map_or_else(Last::default, |(first, hash)| Last { seq: Seq(first.0 - 1), time: Timestamp(0), hash });
    let is_kept = |seq: Seq| floor.is_none_or(|(first, _)| seq >= first);

    let mut last = before_all;
    let mut damage = None;
    let mut upto = Seq(u64::MAX);
    // Ends at the newest frame that is intact; the frames after it are what is damaged.
    while let Some(frame) = store.frame_at_or_before(upto)?.filter(|frame| is_kept(frame.first_seq)) {
        upto = Seq(frame.first_seq.0.saturating_sub(1));
        let found = match frame.decode() {
            Ok((header, _)) if damage.is_none() => {
                let before = store.frame_at_or_before(upto)?.filter(|frame| is_kept(frame.first_seq));
                let before = before.map_or(before_all.hash, |before| before.hash());
                last = Last { seq: header.last_seq(), time: header.last_time, hash: frame.hash() };
                broken_link(&header, last, before, said)
            }
            // The newest frame before the damage.
            Ok((header, _)) => {
                last = Last { seq: header.last_seq(), time: header.last_time, hash: frame.hash() };
                break;
            }
            Err(error) => match store.frame_error(frame.first_seq, &error) {
                Error::Damaged { damage, .. } => Some(damage),
                newer => return Err(newer),
            },
        };
        if found.is_none() {
            break;
        }
        damage = found;
        last = before_all;
    }
    Ok((last, damage.or_else(|| missing(last, said, new))))
}

/// How the last frame contradicts the one before it, or `HEAD`.
fn broken_link(header: &FrameHeader, last: Last, before: FrameHash, said: Option<Head>) -> Option<Damage> {
    let broken = |why| Some(Damage::Chain { first_seq: header.first_seq, why });
    match said {
        _ if header.previous != before => {
            broken(format!("it follows a frame with hash {}, and the one before it has {before}", header.previous))
        }
        Some(head) if head.stored == last.seq && head.hash != last.hash => {
            broken(format!("it has hash {}, and {} was acknowledged", last.hash, head.hash))
        }
        _ => None,
    }
}

/// What `HEAD` knows of and is not there.
fn missing(last: Last, said: Option<Head>, new: bool) -> Option<Damage> {
    match said {
        None if new && last.seq == Seq::ZERO => None,
        None => Some(Damage::Head { last: last.seq }),
        Some(head) if head.stored > last.seq => Some(Damage::Lost { from: last.seq.next(), to: head.stored }),
        // If more is stored than was acknowledged, the process ended between the two.
        Some(_) => None,
    }
}
