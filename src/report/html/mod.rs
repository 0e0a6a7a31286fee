//! A report as one HTML file: no network, no other file, light and dark, readable without its script.

mod explorer;
mod svg;

use std::fmt::Write as _;
use std::io;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::units::significant;

use super::plot::{NARROW, WIDE};
use super::{Cell, Download, Figure, Headline, Origin, Render, Report, Section, Table};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Renders one self-contained page.
#[derive(Debug, Default)]
pub struct Html;

impl Render for Html {
    fn render(&self, report: &Report, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(page(report).into_string().as_bytes())
    }
}

fn page(report: &Report) -> Markup {
    // Nothing is fetched, and no script runs but the one below.
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'",
        base64(&Sha256::digest(SCRIPT))
    );
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content="bench";
                title { (report.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.page { h1 { (report.title) } }
                nav.contents aria-label="Contents" {
                    ol {
                        @for (number, section) in report.sections.iter().enumerate() {
                            @if !section.heading.is_empty() && !section.is_part {
                                li { a href=(format!("#s{number}")) { (section.heading) } }
                            }
                        }
                    }
                }
                main id="content" tabindex="-1" {
                    @for (number, section) in report.sections.iter().enumerate() {
                        (self::section(section, number))
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn section(section: &Section, number: usize) -> Markup {
    let id = format!("s{number}");
    html! {
        section aria-labelledby=[(!section.heading.is_empty()).then_some(&id)] {
            @if section.heading.is_empty() {}
            @else if section.is_part { h3 id=(id) { (section.heading) } }
            @else { h2 id=(id) { (section.heading) } }
            @if !section.headlines.is_empty() {
                ul.headlines role="list" {
                    @for headline in &section.headlines { (self::headline(headline)) }
                }
            }
            @for paragraph in &section.text { p { (paragraph) } }
            @for figure in &section.figures { (self::figure(figure)) }
            @if let Some(explorer) = &section.explorer { (explorer::markup(explorer, number)) }
            @if let Some(table) = &section.table { (self::table(table, &section.heading)) }
            @if !section.commands.is_empty() {
                pre tabindex="0" role="region" aria-label="Commands" { code { (section.commands.join("\n")) } }
            }
            @if let Some(download) = &section.download { p { (link(download)) } }
            @if !section.notes.is_empty() {
                div.notes { @for note in &section.notes { p { (note) } } }
            }
        }
    }
}

fn headline(headline: &Headline) -> Markup {
    html! {
        li.headline {
            p.label { (headline.label) }
            p.value { (headline.value) }
            @if let Some(interval) = &headline.interval { p.interval { (interval) } }
            @for line in &headline.detail { p { (line) } }
            @if headline.origin.is_some() || headline.marks.is_some() {
                p.basis {
                    @if let Some(origin) = headline.origin {
                        span class=(class(origin)) { (origin.to_string()) }
                    }
                    @if let Some(marks) = &headline.marks { span.marked { "marked: " (marks) } }
                }
            }
        }
    }
}

fn figure(figure: &Figure) -> Markup {
    let values = figure.plot.values();
    html! {
        figure id=(figure.name) {
            figcaption { (figure.plot.title()) }
            @if !figure.plot.is_empty() {
                (svg::markup(&figure.plot.scene(WIDE), figure.plot.title(), "wide"))
                (svg::markup(&figure.plot.scene(NARROW), figure.plot.title(), "narrow"))
            }
            @if let Some(note) = &figure.note { p.note { (note) } }
            details {
                summary { "The values of this chart" }
                (table(&values, figure.plot.title()))
            }
        }
    }
}

/// A table; `label` names it where it has no caption.
fn table(table: &Table, label: &str) -> Markup {
    let name = table.caption.as_deref().unwrap_or(label);
    // Properties of things, in an order that means something.
    let is_list = table.columns.first().is_some_and(|column| column.name.is_empty());
    html! {
        @if let Some(caption) = &table.caption { p.note { (caption) } }
        div.table role="region" tabindex="0" aria-label=(format!("Table: {name}")) {
            table class=[is_list.then_some("list")] {
                caption.unseen { (name) }
                thead {
                    tr {
                        @for column in &table.columns {
                            @if column.name.is_empty() { td {} }
                            @else {
                                th scope="col" class=[column.right.then_some("n")] { (column.name) }
                            }
                        }
                    }
                }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (at, cell) in row.iter().enumerate() {
                                @if at == 0 { th scope="row" data-v=[value(cell)] { (self::cell(cell)) } }
                                @else {
                                    td class=[is_right(table, at).then_some("n")] data-v=[value(cell)] {
                                        (self::cell(cell))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn is_right(table: &Table, at: usize) -> bool {
    table.columns.get(at).is_some_and(|column| column.right)
}

fn cell(cell: &Cell) -> Markup {
    html! {
        @match cell.origin {
            None => (cell.text),
            Some(origin) => span class=(class(origin)) {
                (cell.text) span.unseen { " (" (origin.to_string()) ")" }
            },
        }
    }
}

fn value(cell: &Cell) -> Option<String> {
    cell.value.filter(|v| v.is_finite()).map(|v| significant(v, 6))
}

fn class(origin: Origin) -> &'static str {
    match origin {
        Origin::Measured => "origin measured",
        Origin::Calibrated => "origin calibrated",
        Origin::Predicted => "origin predicted",
    }
}

/// The file in the page itself, so that it can be had without any other file.
fn link(download: &Download) -> Markup {
    let mut address = format!("data:{};charset=utf-8,", download.media_type);
    for byte in download.text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => address.push(char::from(byte)),
            b'-' | b'_' | b'.' | b',' | b':' | b';' | b'=' | b'/' | b'@' => {
                address.push(char::from(byte));
            }
            _ => {
                let _ = write!(address, "%{byte:02X}");
            }
        }
    }
    html! { a.download download=(download.name) href=(address) { (download.label) } }
}

/// RFC 4648, for the one hash that a page carries.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place) & 63) as usize;
            text.push(if place > chunk.len() { '=' } else { char::from(LETTERS[six]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "\"><script>alert(1)</script>'&<img src=x onerror=alert(2)>";

    #[test]
    fn hostile_names_are_shown_and_not_obeyed_in_every_place() {
        let mut table = Table::new(&[HOSTILE, ">tok/s"]);
        table.caption = Some(HOSTILE.to_owned());
        table.rows.push(vec![HOSTILE, HOSTILE]);
        let section = Section {
            heading: HOSTILE.to_owned(),
            text: vec![HOSTILE.to_owned()],
            headlines: vec![Headline {
                label: HOSTILE.to_owned(),
                value: HOSTILE.to_owned(),
                interval: Some(HOSTILE.to_owned()),
                detail: vec![HOSTILE.to_owned()],
                marks: Some(HOSTILE.to_owned()),
                origin: None,
            }],
            table: Some(table),
            notes: vec![HOSTILE.to_owned()],
            commands: vec![HOSTILE.to_owned()],
            download: Some(Download {
                name: HOSTILE.to_owned(),
                label: HOSTILE.to_owned(),
                media_type: "text/csv",
                text: HOSTILE.to_owned(),
            }),
            ..Section::default()
        };
        let page = page(&Report { title: HOSTILE.to_owned(), sections: vec![section] });
        let page = page.into_string();
        assert_eq!(page.matches("<script>").count(), 1, "ours alone");
        assert!(!page.contains("<img"), "{page}");
        assert!(!page.contains("\"><script>alert"), "an attribute was left: {page}");
    }

    #[test]
    fn the_page_names_no_address_of_a_network() {
        for text in [STYLE, SCRIPT] {
            for word in ["http:", "https:", "//cdn", "@import", "url(", "fetch(", "XMLHttp"] {
                assert!(!text.contains(word), "{word}");
            }
        }
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_download_keeps_every_byte() {
        let text = "a,\"b\"\n=1+2 #%é";
        let download = Download {
            name: "x.csv".to_owned(),
            label: "x".to_owned(),
            media_type: "text/csv",
            text: text.to_owned(),
        };
        let page = link(&download).into_string();
        assert!(page.contains("a,%22b%22%0A=1%2B2%20%23%25%C3%A9"), "{page}");
    }
}
