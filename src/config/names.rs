//! Finds the setting that a misspelt name means.

use super::settings::SETTINGS;

/// Every variable of a setting: its name and aliases, for a secret also with `_FILE`.
pub fn known() -> impl Iterator<Item = String> {
    SETTINGS.iter().flat_map(|setting| {
        let file = setting.secret.then_some("_FILE");
        setting.names().flat_map(move |name| {
            std::iter::once(name.to_owned()).chain(file.map(|file| format!("{name}{file}")))
        })
    })
}

/// Whether the variable is one of a setting.
pub fn is_known(variable: &str) -> bool {
    known().any(|name| name == variable)
}

/// The variable of a setting that is nearest to this one, and the number of different letters.
pub fn nearest(variable: &str) -> (String, usize) {
    let upper = variable.to_ascii_uppercase();
    let known = known().map(|name| (difference(&upper, &name), name));
    let (difference, name) = known
        .min_by_key(|(difference, _)| *difference)
        .unwrap_or_default();
    (name, difference)
}

/// The variable of a setting of which this is probably a misspelling: one letter differs, or two neighbours are swapped; in long names
/// two letters may differ. Short names are too similar to other names.
pub fn meant(variable: &str) -> Option<String> {
    let (name, difference) = nearest(variable);
    let sorted = |text: &str| {
        let mut letters = text.to_ascii_uppercase().into_bytes();
        letters.sort_unstable();
        letters
    };
    let near = match difference {
        0 | 1 => name.len() > 4,
        2 => name.len() >= 16 || (name.len() > 4 && sorted(variable) == sorted(&name)),
        _ => false,
    };
    // The first letter is seldom mistyped, and READ_TIMEOUT is not HEAD_TIMEOUT.
    let same_start = sorted(variable.get(..1)?) == sorted(name.get(..1)?);
    (near && same_start && !is_known(variable)).then_some(name)
}

/// The number of letters to change, add or remove (Levenshtein distance).
fn difference(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.bytes().enumerate() {
        let mut last = index + 1;
        let mut next = vec![last];
        for (pair, wanted) in row.windows(2).zip(other.bytes()) {
            if let [before, above] = pair {
                let changed = before + usize::from(letter != wanted);
                last = changed.min(above + 1).min(last + 1);
                next.push(last);
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_means_the_nearest_setting() {
        for (name, setting) in [
            ("LISTN", "LISTEN"),
            ("WROKERS", "WORKERS"),
            ("workers", "WORKERS"),
            ("DATABASE_URI", "DATABASE_URL"),
            ("BETTER_AUTH_SECRET_FIEL", "BETTER_AUTH_SECRET_FILE"),
            ("RATE_LIMITS_PER_HOURS", "RATE_LIMIT_PER_HOUR"),
        ] {
            assert_eq!(meant(name).as_deref(), Some(setting), "{name}");
        }
        for name in [
            "PATH",
            "POST",
            "HOSTNAME",
            "LISTEN_FDS",
            "READ_TIMEOUT",
            "HOME",
            "LISTEN",
        ] {
            assert_eq!(meant(name), None, "{name}");
        }
    }
}
