//! Ids: a prefix that says what the thing is, and a time-ordered UUID in base32.

use crate::Millis;

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Fills `N` bytes from the operating system's random source.
///
/// # Panics
/// When the operating system has no random source: then no key, id or nonce may be made at all.
#[expect(clippy::expect_used, reason = "without a random source nothing here is safe")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has a random source");
    bytes
}

/// A new id such as `job_01k…`: `prefix`, then 26 characters that sort by `now`, 74 bits of them random.
pub fn new(prefix: &str, now: Millis) -> String {
    let millis = u64::try_from(now.0).unwrap_or(0);
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random_bytes()).into_uuid();
    let mut value = uuid.as_u128();
    let mut text = [0_u8; 26];
    for slot in text.iter_mut().rev() {
        *slot = CROCKFORD[(value & 31) as usize];
        value >>= 5;
    }
    let mut id = String::with_capacity(prefix.len() + text.len());
    id.push_str(prefix);
    id.extend(text.iter().map(|byte| char::from(*byte)));
    id
}

/// When the id was made, by the clock of whoever made it; `None` when it is no id of this form.
pub fn time(id: &str) -> Option<Millis> {
    let (_, text) = id.rsplit_once('_').filter(|(_, text)| text.len() == 26)?;
    let value = text.bytes().try_fold(0_u128, |value, byte| {
        let digit = CROCKFORD.iter().position(|known| *known == byte)?;
        value.checked_mul(32)?.checked_add(u128::try_from(digit).ok()?)
    })?;
    i64::try_from(value >> 80).ok().map(Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_when_it_was_made() {
        for at in [Millis(0), Millis(1_700_000_000_000), Millis((1 << 48) - 1)] {
            assert_eq!(time(&new("req_", at)), Some(at));
        }
        let id = new("req_", Millis(5));
        for bad in ["", "req_", "req", &id[4..], &id[..29], &format!("{id}0"), &id.to_uppercase(), "req_é"] {
            assert_eq!(time(bad), None, "{bad}");
        }
        assert_eq!(time(&format!("req_{}", "z".repeat(26))), None, "more than 128 bits");
    }

    #[test]
    fn ids_carry_their_prefix_sort_by_time_and_differ() {
        let (early, late) = (new("job_", Millis(1_700_000_000_000)), new("job_", Millis(1_700_000_000_001)));
        assert!(early < late);
        assert_eq!(early.len(), "job_".len() + 26);
        assert_ne!(new("job_", Millis(5)), new("job_", Millis(5)));
    }
}
