//! What machines are called in a report: names that people gave are left out unless asked for.

use std::borrow::Cow;

use super::Source;

/// The names that stand in records, and what is written instead of them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    shown: Vec<(String, String)>,
    is_open: bool,
}

impl Names {
    /// The names of the hosts of `sources`; all are shown where `is_open`.
    pub fn of(sources: &[Source], is_open: bool) -> Self {
        let mut names = Self { shown: Vec::new(), is_open };
        for source in sources {
            for record in &source.records {
                if names.shown.iter().any(|(real, _)| *real == record.host) {
                    continue;
                }
                let label = source.host.as_ref().map(|host| host.label.clone());
                let shown = match label {
                    _ if is_open => record.host.clone(),
                    // Made of the hardware: it names neither a machine nor a person.
                    Some(label) => label,
                    None => "a machine that is not described".to_owned(),
                };
                // Two machines of one kind are still two machines.
                let same = names.shown.iter().filter(|(_, s)| {
                    *s == shown || s.strip_prefix(&shown).is_some_and(|n| n.starts_with(" no. "))
                });
                let shown = match same.count() {
                    0 => shown,
                    others => format!("{shown} no. {}", others + 1),
                };
                names.shown.push((record.host.clone(), shown));
            }
        }
        names
    }

    /// What the host of a record is called.
    pub fn host(&self, real: &str) -> String {
        let found = self.shown.iter().find(|(name, _)| name == real);
        found.map_or_else(|| real.to_owned(), |(_, shown)| shown.clone())
    }

    /// Whether a name is left out.
    pub fn hides_any(&self) -> bool {
        !self.is_open && self.shown.iter().any(|(real, shown)| is_name(real) && real != shown)
    }

    /// The text without names of hosts and of users' folders.
    pub fn without(&self, text: &str) -> String {
        if self.is_open {
            return text.to_owned();
        }
        let mut text = without_users(text).into_owned();
        for (real, shown) in &self.shown {
            if is_name(real) && real != shown {
                text = replace_word(&text, real, &shown.replace(' ', "-"));
            }
        }
        text
    }
}

/// Whether it names a machine: of an import without one it is the word for that.
fn is_name(host: &str) -> bool {
    !host.is_empty() && host != "unknown"
}

/// Replaces `word` where it is not part of a longer one.
fn replace_word(text: &str, word: &str, by: &str) -> String {
    let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let is_whole = !is_part(before.chars().last()) && !is_part(after.chars().next());
        replaced.push_str(before);
        replaced.push_str(if is_whole { by } else { word });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

/// `/home/ada/models/x` becomes `~/models/x`, on every system.
fn without_users(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for (root, end) in [("/home/", '/'), ("/Users/", '/'), (r"\Users\", '\\')] {
        let mut from = 0;
        while let Some(at) = text[from..].find(root).map(|at| from + at) {
            let name = at + root.len();
            let length = text[name..]
                .find(|c: char| c == end || c.is_whitespace() || "'\",;:".contains(c))
                .unwrap_or(text.len() - name);
            // `C:` goes with the folder that it is of.
            let start = match text[..at].strip_suffix(':') {
                Some(before) if end == '\\' => before.len().saturating_sub(1),
                _ => at,
            };
            text = Cow::Owned(format!("{}~{}", &text[..start], &text[name + length..]));
            from = start + 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn source(host: &str) -> Source {
        let record = Record { host: host.to_owned(), ..Record::default() };
        Source { records: vec![record], ..Source::default() }
    }

    #[test]
    fn the_folder_of_a_user_is_written_without_the_user() {
        let names = Names::default();
        for (text, without) in [
            ("cannot read '/home/ada/models/x.gguf'", "cannot read '~/models/x.gguf'"),
            ("/Users/ada/m and /home/bob", "~/m and ~"),
            (r"C:\Users\ada\x.gguf is damaged", r"~\x.gguf is damaged"),
            ("threads=2 mmap=true", "threads=2 mmap=true"),
            ("/home/", "~"),
        ] {
            assert_eq!(names.without(text), without);
        }
    }

    #[test]
    fn a_name_that_a_person_gave_is_shown_only_when_asked_for() {
        let sources = [source("adas-box"), source("bobs-box")];
        let closed = Names::of(&sources, false);
        assert_eq!(closed.host("adas-box"), "a machine that is not described");
        assert_eq!(closed.host("bobs-box"), "a machine that is not described no. 2");
        assert!(closed.hides_any());
        let command = closed.without("bench report results/2026-11-21-adas-box-x");
        assert!(!command.contains("adas-box"), "{command}");
        let open = Names::of(&sources, true);
        assert_eq!(open.host("adas-box"), "adas-box");
        assert!(!open.hides_any());
    }

    #[test]
    fn the_word_for_a_machine_that_no_file_names_is_no_name() {
        let names = Names::of(&[source("unknown")], false);
        assert!(!names.hides_any());
        assert_eq!(
            names.without("vllm-unknown-p512: unknown error"),
            "vllm-unknown-p512: unknown error"
        );
        assert_eq!(names.host("unknown"), "a machine that is not described");
    }

    #[test]
    fn a_short_name_does_not_change_other_words() {
        assert_eq!(replace_word("box boxes x-box", "box", "host"), "host boxes x-host");
    }
}
