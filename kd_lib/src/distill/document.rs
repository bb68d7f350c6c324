//! A document of headings, paragraphs and tables, as Markdown and as one self-contained HTML page.

use crate::store::Table;

/// A part of a document.
#[derive(Debug, Clone)]
pub enum Block {
    /// A heading of the second level.
    Heading(String),
    /// A paragraph.
    Paragraph(String),
    /// A table.
    Table(Table),
    /// Lines of a command line.
    Code(String),
    /// A picture as SVG, and what it shows.
    Picture {
        /// The picture.
        svg: String,
        /// What it shows, for the Markdown form.
        caption: String,
    },
}

/// A document.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its title.
    pub title: String,
    /// Its parts.
    pub blocks: Vec<Block>,
}

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;\
    text-align:left;vertical-align:top}th{background:#f2f2f2}pre{background:#f6f6f6;padding:.6rem;\
    overflow-x:auto}svg{max-width:100%}";

impl Document {
    /// A document of a title alone.
    pub fn new(title: impl Into<String>) -> Document {
        Document {
            title: title.into(),
            blocks: Vec::new(),
        }
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        self.blocks.push(Block::Heading(text.to_owned()));
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Paragraph(text.into()));
    }

    /// Adds a table.
    pub fn table(&mut self, table: Table) {
        self.blocks.push(Block::Table(table));
    }

    /// The document as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", self.title);
        for block in &self.blocks {
            text += "\n";
            text += &match block {
                Block::Heading(heading) => format!("## {heading}\n"),
                Block::Paragraph(paragraph) => format!("{paragraph}\n"),
                Block::Table(table) => markdown_table(table),
                Block::Code(code) => format!("```sh\n{code}\n```\n"),
                Block::Picture { caption, .. } => format!("*{caption}* (see the HTML page)\n"),
            };
        }
        text
    }

    /// The document as one HTML page without references to other files.
    pub fn html(&self) -> String {
        let title = escaped(&self.title);
        let mut body = format!("<h1>{title}</h1>\n");
        for block in &self.blocks {
            body += &match block {
                Block::Heading(heading) => format!("<h2>{}</h2>\n", escaped(heading)),
                Block::Paragraph(paragraph) => format!("<p>{}</p>\n", escaped(paragraph)),
                Block::Table(table) => html_table(table),
                Block::Code(code) => format!("<pre>{}</pre>\n", escaped(code)),
                Block::Picture { svg, caption } => {
                    format!(
                        "<figure>{svg}<figcaption>{}</figcaption></figure>\n",
                        escaped(caption)
                    )
                }
            };
        }
        format!(
            "<!DOCTYPE html>\n<html>\n<head><meta charset=\"utf-8\"><title>{title}</title>\
             <style>{STYLE}</style></head>\n<body>\n{body}</body>\n</html>\n"
        )
    }
}

fn markdown_table(table: &Table) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(table.head.iter().map(|head| cell(head)).collect());
    text += &line(vec!["---".into(); table.head.len()]);
    for row in &table.rows {
        let cells = row.iter().map(|c| {
            if c.strong {
                format!("**{}**", cell(&c.text))
            } else {
                cell(&c.text)
            }
        });
        text += &line(cells.collect());
    }
    text
}

fn html_table(table: &Table) -> String {
    let head = table
        .head
        .iter()
        .map(|head| format!("<th>{}</th>", escaped(head)));
    let mut text = format!("<table>\n<tr>{}</tr>\n", head.collect::<String>());
    for row in &table.rows {
        let cells = row.iter().map(|cell| {
            if cell.strong {
                format!("<td><b>{}</b></td>", escaped(&cell.text))
            } else {
                format!("<td>{}</td>", escaped(&cell.text))
            }
        });
        text += &format!("<tr>{}</tr>\n", cells.collect::<String>());
    }
    text + "</table>\n"
}

fn escaped(text: &str) -> String {
    let marks = [
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("\"", "&quot;"),
    ];
    marks.iter().fold(text.to_owned(), |text, (mark, name)| {
        text.replace(mark, name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_corpus_contains_is_no_markup_of_the_page() {
        let mut table = Table::new(&["text"]);
        table.push(["<script>a|b</script> & \"c\""]);
        let mut document = Document::new("<title>");
        document.table(table);
        let html = document.html();
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;a|b"));
        assert!(
            document
                .markdown()
                .contains("| <script>a\\|b</script> & \"c\" |")
        );
    }
}
