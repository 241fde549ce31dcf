//! The JSON type and limits of a value, for the API's description.

/// What a JSON value may be. Limits of text count characters (Unicode scalar values).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A whole number from `min` to `max`, both included.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A string.
    Text {
        /// Least number of characters.
        min: usize,
        /// Greatest number of characters.
        max: usize,
        /// A regular expression (ECMA-262) that it matches; empty: none.
        pattern: &'static str,
    },
    /// A UUID.
    Uuid,
    /// A timestamp (RFC 3339).
    Moment,
    /// A calendar date (RFC 3339, full-date).
    Date,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// Any of these shapes.
    Either(&'static [Shape]),
    /// A list.
    List {
        /// The shape of each entry.
        of: &'static Shape,
        /// Greatest number of entries.
        max: usize,
    },
    /// A shape with a name of its own in the description.
    Named {
        /// Its name.
        name: &'static str,
        /// What it is, in one sentence.
        meaning: &'static str,
        /// An example, as JSON; empty: none. A type of query parameters has none.
        example: &'static str,
        /// The shape itself.
        shape: &'static Shape,
    },
}

/// Any string.
pub const TEXT: Shape = Shape::Text {
    min: 0,
    max: usize::MAX,
    pattern: "",
};
