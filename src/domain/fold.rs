//! Text without case and accents, for searching and sorting. The same on every machine, whatever the database's locale.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Removes case, accents and the like: `Straße` and `STRASSE` become `strasse`, `É` and `é` become `e`, `ﬁ` becomes `fi`.
///
/// Compatibility decomposition (Unicode Standard Annex 15), without combining marks, then upper and lower case, which together
/// approximate full case folding.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd()
        .filter(|c| !is_combining_mark(*c))
        // The upper case of ß is SS, but that of the capital ẞ is ẞ.
        .map(|c| if c == 'ẞ' { 'ß' } else { c })
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        // Lower case can add marks again: İ becomes i and a dot above.
        .nfkd()
        .filter(|c| !is_combining_mark(*c))
        .collect()
}

/// The folded text where it is not the same as the text in lower case, which PostgreSQL makes itself (ASCII letters only).
pub fn folded(text: &str) -> Option<String> {
    (!text.is_ascii()).then(|| fold(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::Title;
    use proptest::prelude::*;

    #[test]
    fn case_and_accents_are_gone() {
        for (text, folded) in [
            ("Crème BRÛLÉE", "creme brulee"),
            ("Straße STRASSE STRAẞE", "strasse strasse strasse"),
            ("İstanbul ısırgan", "istanbul isirgan"),
            ("ΣΊΣΥΦΟΣ σίσυφος", "σισυφοσ σισυφοσ"),
            ("Ёлка", "елка"),
            ("e\u{301} \u{e9} ﬁx Ａ①", "e e fix a1"),
            ("日本語 \u{1f44d}", "日本語 \u{1f44d}"),
            ("100%_\\", "100%_\\"),
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(text in any::<String>()) {
            let folded = fold(&text);
            prop_assert_eq!(fold(&folded), folded);
        }

        #[test]
        fn case_does_not_matter(text in "[a-zA-ZäöüßéñøœЖжΣσçİıŐ ]{0,20}") {
            prop_assert_eq!(fold(&text.to_uppercase()), fold(&text));
        }

        #[test]
        fn a_title_stays_one_line(text in any::<String>()) {
            if let Ok(title) = Title::parse(&text) {
                prop_assert!(!fold(title.as_str()).contains('\n'));
            }
        }
    }
}
