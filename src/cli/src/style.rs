//! Colours. They are always written; the output stream strips them where nobody would see them.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
    Blue,
    Magenta,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Cyan => "36",
            Self::Blue => "34",
            Self::Magenta => "35",
        }
    }

    pub fn paint(self, text: &str) -> String {
        if self == Self::Plain || text.is_empty() {
            text.to_owned()
        } else {
            format!("\x1b[{}m{text}\x1b[0m", self.code())
        }
    }

    /// A colour that stays with a word.
    pub fn of_word(word: &str) -> Self {
        const COLOURS: [Style; 6] =
            [Style::Cyan, Style::Green, Style::Yellow, Style::Blue, Style::Magenta, Style::Red];
        let sum = word.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        COLOURS[sum as usize % COLOURS.len()]
    }

    pub fn of_phase(phase: &str) -> Self {
        match phase {
            "Succeeded" => Self::Green,
            "Failed" | "Error" => Self::Red,
            "Running" => Self::Cyan,
            "Pending" | "" => Self::Yellow,
            _ => Self::Plain,
        }
    }
}
