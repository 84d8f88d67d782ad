//! Consistent hashing: a ring on which every endpoint has many places, and a key belongs to the next one.
//!
//! All proxies build the same ring for the same endpoints, so that clients agree without talking to each other.

use std::net::{IpAddr, SocketAddr};

use http::header::COOKIE;

use super::HashKey;
use crate::decide::RequestHead;

/// Places of the endpoints with the highest weight; the others have fewer, in proportion.
const PLACES: u64 = 160;

/// FNV-1a, and the finish of MurmurHash3 so that near keys come to lie far apart. Part of the protocol between
/// proxies: with another one, keys move to other endpoints.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The endpoints of a pool on the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Hashes in order, with the index of the endpoint.
    places: Box<[(u64, u32)]>,
}

impl Ring {
    /// Endpoints by index, with their weights. Those with weight 0 have no place, unless all have weight 0.
    ///
    /// The places of an endpoint depend on its address and on its weight in relation to the highest: so when one goes, or
    /// comes, only keys move that it had, or gets.
    pub fn new(endpoints: &[(SocketAddr, u32)]) -> Self {
        let most = endpoints.iter().map(|(_, weight)| u64::from(*weight)).max().unwrap_or_default();
        let mut places = Vec::new();
        for (index, (address, weight)) in endpoints.iter().enumerate() {
            let count = match u64::from(*weight) {
                0 if most > 0 => 0,
                _ if most == 0 => PLACES,
                weight => (PLACES * weight).div_ceil(most),
            };
            let address = address.to_string();
            places.extend((0..count).map(|place| (hash(format!("{address}#{place}").as_bytes()), index as u32)));
        }
        places.sort_unstable();
        Self { places: places.into() }
    }

    /// The endpoint that `key` belongs to, or the next one on the ring for which `usable` holds.
    pub fn owner(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.places.partition_point(|(place, _)| *place < key);
        let (before, after) = self.places.split_at(start);
        after.iter().chain(before).map(|(_, index)| *index as usize).find(|index| usable(*index))
    }
}

/// The hash of the first of `keys` that the request has. `head` is none for an opaque connection.
pub fn key_of(keys: &[HashKey], head: Option<&RequestHead<'_>>, source: Option<IpAddr>) -> Option<u64> {
    keys.iter().find_map(|key| match key {
        HashKey::SourceAddress => Some(match source?.to_canonical() {
            IpAddr::V4(address) => hash(&address.octets()),
            IpAddr::V6(address) => hash(&address.octets()),
        }),
        HashKey::Header(name) => Some(hash(head?.headers.get(name)?.as_bytes())),
        HashKey::Cookie(name) => cookie(head?, name).map(hash),
        HashKey::Path => Some(hash(head?.path.split('?').next()?.as_bytes())),
        HashKey::QueryParameter(name) => {
            let (_, query) = head?.path.split_once('?')?;
            let mut parameters = query.split('&').filter_map(|one| one.split_once('='));
            parameters.find(|(one, _)| one == name).map(|(_, value)| hash(value.as_bytes()))
        }
    })
}

pub(super) fn cookie<'a>(head: &RequestHead<'a>, name: &str) -> Option<&'a [u8]> {
    let lines = head.headers.get_all(COOKIE).iter();
    let mut cookies = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    cookies.find_map(|cookie| cookie.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoints(count: usize) -> Vec<(SocketAddr, u32)> {
        (0..count).map(|index| (SocketAddr::from(([10, 0, 0, index as u8], 80)), 1)).collect()
    }

    fn key(number: u32) -> u64 {
        hash(&number.to_be_bytes())
    }

    proptest! {
        #[test]
        fn only_keys_of_an_endpoint_that_goes_move(count in 2usize..20, gone in 0usize..20, keys in any::<[u32; 32]>()) {
            let gone = gone % count;
            let all = endpoints(count);
            let left: Vec<_> = all.iter().enumerate().filter(|(index, _)| *index != gone).map(|(_, one)| *one).collect();
            let (before, after) = (Ring::new(&all), Ring::new(&left));
            for number in keys {
                let owner = before.owner(key(number), |_| true).unwrap();
                let new = left[after.owner(key(number), |_| true).unwrap()];
                if owner != gone {
                    prop_assert_eq!(all[owner], new);
                }
                // To leave it out is the same as if it was not there.
                prop_assert_eq!(all[before.owner(key(number), |index| index != gone).unwrap()], new);
            }
        }

        #[test]
        fn everything_unusable_has_no_owner(count in 0usize..9, number in any::<u32>()) {
            prop_assert_eq!(Ring::new(&endpoints(count)).owner(key(number), |_| false), None);
        }
    }

    #[test]
    fn shares_are_as_the_weights_within_a_third() {
        let mut all = endpoints(10);
        (all[3].1, all[4].1) = (3, 0);
        let ring = Ring::new(&all);
        let mut counts = [0u32; 10];
        for number in 0..100_000 {
            counts[ring.owner(key(number), |_| true).unwrap()] += 1;
        }
        let weights: u32 = all.iter().map(|(_, weight)| weight).sum();
        for (index, (_, weight)) in all.iter().enumerate() {
            let fair = 100_000 * weight / weights;
            let bound = fair * 2 / 3..=fair * 4 / 3;
            assert!(bound.contains(&counts[index]), "endpoint {index} has {}, its fair share is {fair}", counts[index]);
        }
    }

    #[test]
    fn the_first_key_that_is_there_counts() {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-user", "ann".parse().unwrap());
        headers.append(COOKIE, "a=1; session=s1".parse().unwrap());
        let head = RequestHead { method: "GET", authority: "store", path: "/p?q=7&r", headers: &headers, flaw: None };
        let of = |keys: &[HashKey]| key_of(keys, Some(&head), Some(IpAddr::from([10, 0, 0, 9])));
        let user = HashKey::Header(http::HeaderName::from_static("x-user"));
        let absent = HashKey::Header(http::HeaderName::from_static("x-absent"));
        assert_eq!(of(&[absent.clone(), user.clone()]), Some(hash(b"ann")));
        assert_eq!(of(&[HashKey::Cookie("sess".into()), HashKey::Path]), Some(hash(b"/p")));
        assert_eq!(of(&[HashKey::Cookie("session".into())]), Some(hash(b"s1")));
        assert_eq!(of(&[HashKey::QueryParameter("r".into()), HashKey::QueryParameter("q".into())]), Some(hash(b"7")));
        assert_eq!(of(&[absent.clone(), HashKey::SourceAddress]), Some(hash(&[10, 0, 0, 9])));
        assert_eq!(of(&[absent]), None);
        assert_eq!(key_of(&[user], None, None), None);
    }
}
