//! As much of Markdown as descriptions use: headings, paragraphs, tables, and code within a line.

use super::html::{anchor, code, escape};

/// Several blocks, told apart by empty lines.
pub fn html(markdown: &str) -> String {
    let mut out = String::new();
    for block in markdown
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty())
    {
        if let Some(heading) = block.strip_prefix("## ") {
            out.push_str(&format!(
                "<h2 id=\"{}\">{}</h2>\n",
                anchor("about-", heading),
                line(heading)
            ));
        } else if block.starts_with('|') {
            table(&mut out, block);
        } else {
            out.push_str(&format!("<p>{}</p>\n", line(block)));
        }
    }
    out
}

/// One line: text, and code between backticks.
pub fn line(markdown: &str) -> String {
    markdown
        .split('`')
        .enumerate()
        .map(|(number, part)| {
            if number % 2 == 1 {
                code(part)
            } else {
                escape(part)
            }
        })
        .collect()
}

fn table(out: &mut String, block: &str) {
    out.push_str("<div class=\"wide\"><table>\n");
    for (number, row) in block.lines().enumerate().filter(|(number, _)| *number != 1) {
        let cell = if number == 0 { "th" } else { "td" };
        out.push_str("<tr>");
        for text in row.trim_matches('|').split('|') {
            out.push_str(&format!("<{cell}>{}</{cell}>", line(text.trim())));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_elements_and_text_stays_text() {
        assert_eq!(
            html("## A b\n\nsome `x<y` & more\nlines\n\n| a | b |\n|---|---|\n| `1` | 2 |"),
            "<h2 id=\"about-A-b\">A b</h2>\n<p>some <code>x&lt;y</code> &amp; more\nlines</p>\n\
             <div class=\"wide\"><table>\n<tr><th>a</th><th>b</th></tr>\n<tr><td><code>1</code></td><td>2</td></tr>\n</table></div>\n"
        );
    }
}
