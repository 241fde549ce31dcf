//! Tests of the readers: formats, ids, errors, and mutated input.

use std::time::{Duration, Instant};

use super::*;
use crate::domain::task::Due;
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;

fn read(text: &[u8], format: Format) -> Vec<FileTask> {
    let start = Timestamp::parse("2030-01-31T00:00:00Z").unwrap();
    let user = UserId::parse("u1").unwrap();
    let tasks = read_tasks(text, format, &user, start);
    tasks.collect::<Result<_, _>>().unwrap()
}

fn tasks(text: &str, format: Format) -> Vec<ImportedTask> {
    let tasks = read(text.as_bytes(), format).into_iter();
    tasks.map(|(_, task)| task.unwrap()).collect()
}

/// Line, field and message of every error.
fn errors(text: &str, format: Format) -> Vec<String> {
    let lines = read(text.as_bytes(), format).into_iter();
    let errors = lines.filter_map(|(line, task)| Some((line, task.err()?)));
    let errors = errors.flat_map(|(line, errors)| {
        let errors = errors.into_iter();
        errors.map(move |error| format!("{line} {} {}", error.field, error.message))
    });
    errors.collect()
}

fn titles(tasks: &[ImportedTask]) -> Vec<&str> {
    tasks.iter().map(|read| read.task.title.as_str()).collect()
}

const EXPORTED: &str = r#"{"id":"0190b7c6-5d20-7c3a-9f1e-2b6d1c0e4a55","user_id":"other","title":"Buy milk","description":"2 l\n\"fresh\"","completed":true,"completed_at":"2026-01-31T10:00:00.000001Z","priority":"high","due_date":"2030-01-31","created_at":"2026-01-31T09:30:00.000000Z","updated_at":"2026-02-01T09:30:00.000000Z","version":7,"tags":["errands","a,b"]}"#;

fn as_csv(json: &str) -> String {
    csv::header() + &csv_row(json)
}

fn csv_row(json: &str) -> String {
    let mut row = json.as_bytes().to_vec();
    csv::write_row(&mut row, 0);
    String::from_utf8(row).unwrap()
}

#[test]
fn an_exported_task_is_read_with_every_field() {
    let read = &tasks(EXPORTED, Format::Jsonl)[0];
    assert_eq!(read.task.title.as_str(), "Buy milk");
    assert!(matches!(read.task.due_date, Some(Due::On(_))));
    assert_eq!(read.task.tags.texts(), ["errands", "a,b"]);
    let moment = |text| Timestamp::parse(text);
    assert_eq!(
        read.kept.completed_at,
        moment("2026-01-31T10:00:00.000001Z")
    );
    assert_eq!(read.kept.created_at, moment("2026-01-31T09:30:00Z"));
    assert_eq!(read.kept.updated_at, moment("2026-02-01T09:30:00Z"));
    assert_eq!(read.kept.version, Some(7));
    assert_eq!(read.task.id.get_version_num(), 7);
    let from_csv = &tasks(&as_csv(EXPORTED), Format::Csv)[0];
    assert_eq!((&from_csv.task, &from_csv.kept), (&read.task, &read.kept));
}

#[test]
fn texts_that_a_spreadsheet_would_run_come_back_from_csv_as_they_were() {
    for title in [
        "=1+1", "'=1", "''@x", "+49", "-", "@me", "'quoted'", "[1]", "a\"b,c", "'",
    ] {
        for tag in [title, "a"] {
            let task =
                serde_json::json!({"title": title, "description": title, "tags": [tag, "b"]});
            let text = as_csv(&task.to_string());
            let cell = text
                .lines()
                .nth(1)
                .unwrap()
                .trim_start_matches(',')
                .trim_start_matches('"');
            assert!(!cell.starts_with(['=', '+', '-', '@']), "{cell}");
            let read = &tasks(&text, Format::Csv)[0].task;
            assert_eq!(read.title.as_str(), title);
            assert_eq!(read.description.as_ref().unwrap().as_str(), title);
            assert_eq!(read.tags.texts(), [tag, "b"]);
        }
    }
}

#[test]
fn json_is_read_as_lists_return_it() {
    let task = |title: &str| format!(r#"{{"title":"{title}"}}"#);
    let (a, b) = (task("a"), task("b"));
    for text in [
        format!("{a}\n{b}"),
        format!("\u{feff}{a}\r\n\r\n  {b}  \n"),
        format!(r#"{{"tasks":[{a},{b}],"count":2}}"#),
        format!("[{a},{b}]"),
        format!("{{\"tasks\": [\n{a},\n{b}\n]}}\n"),
        format!("[{a}]\n{{\"tasks\":[{b}]}}\n"),
    ] {
        assert_eq!(titles(&tasks(&text, Format::Jsonl)), ["a", "b"], "{text}");
    }
    for text in ["", "\n \n", "[]", r#"{"tasks":[]}"#] {
        assert!(tasks(text, Format::Jsonl).is_empty(), "{text}");
    }
}

#[test]
fn every_error_names_its_line() {
    let text = "{\"title\":\"a\"}\nnonsense\n{\"title\":\"\",\"priority\":\"urgent\"}\n7\n[{\"title\":\"b\"},null]\n";
    assert_eq!(
        errors(text, Format::Jsonl),
        [
            "2 json is not valid: see column 2",
            "3 title must have 1 to 200 characters",
            "3 priority must be low, medium or high",
            "4 json must be an object, the task",
            "5 json must be an object, the task",
        ]
    );
    // An object that is not closed on the first line is no reason to take the lines behind it for a part of it.
    let text = "{\"title\":\"a\"\n{\"title\":\"b\"}\n{\"title\":\"\"}\n";
    let wrong = errors(text, Format::Jsonl);
    assert_eq!(wrong[1], "3 title must have 1 to 200 characters");
    assert!(wrong[0].starts_with("1 json is not valid"));
    let text = "{\n \"tasks\": [\n  {\"title\": \"a\"},\n  {\"title\":\n   1}\n]}";
    assert_eq!(errors(text, Format::Jsonl), ["4 title must be a string"]);
    let text = "title,due_date,version\n\"two\nlines\",,1\na,soon,0\nb\n";
    assert_eq!(
        errors(text, Format::Csv),
        [
            "2 title must be one line without control characters",
            "4 due_date must be a date (2026-01-31) or a timestamp with offset (2026-01-31T09:30:00Z)",
            "4 version must be a whole number from 1 to 9007199254740991",
            "5 row has 1 values, and the header has 3",
        ]
    );
    assert_eq!(
        errors("name;done\nx;1\n", Format::Csv),
        ["2 title is required"]
    );
}

#[test]
fn columns_are_found_by_their_names_in_spreadsheets() {
    let text = "\u{feff}Title;Is Completed;Due Date;Tags;Colour\r\n Tea ;TRUE;2030-01-31;a, b;red\r\nCake;;;;\r\n";
    let read = tasks(text, Format::Csv);
    assert_eq!(titles(&read), ["Tea", "Cake"]);
    assert!(read[0].task.completed && !read[1].task.completed);
    assert_eq!(read[0].task.tags.texts(), ["a", "b"]);
    assert_eq!(read[1].sent, ["title", "due_date", "tags"]);
}

#[test]
fn a_task_without_a_uuid_gets_the_same_one_each_time() {
    let ids = |text: &str, format| -> Vec<uuid::Uuid> {
        let read = tasks(text, format).into_iter();
        read.map(|read| read.task.id).collect()
    };
    let text = "{\"id\":7,\"title\":\"a\"}\n{\"id\":\"7\",\"title\":\"b\"}\n{\"title\":\"c\"}\n{\"title\":\"c\"}\n";
    let first = ids(text, Format::Jsonl);
    assert_eq!(first, ids(text, Format::Jsonl));
    assert_eq!(first[0], first[1]);
    assert_ne!(first[2], first[3]);
    assert!(first.iter().all(|id| id.get_version_num() == 5));
    // A new version of the program gives the same ids.
    assert_eq!(first[0].to_string(), "eb15300a-5dd4-5f78-a7b9-a8b23002a20c");
    assert_eq!(first[3].to_string(), "a40fdf06-288b-5875-a62b-7f36ab3cbb70");
    // A task that is added does not change the ids of the others.
    let more = ids(&format!("{{\"title\":\"new\"}}\n{text}"), Format::Jsonl);
    assert_eq!(more[1..], first);
    assert_ne!(ids("id,title\n7,a\n", Format::Csv)[0], first[0]);
    let mut of_other = Ids::new(&UserId::parse("u2").unwrap(), "Jsonl");
    let other = ImportedTask::read(r#"{"id":7,"title":"a"}"#, &mut of_other).unwrap();
    assert_ne!(other.task.id, first[0]);
    for text in [r#"{"id":"","title":"c"}"#, r#"{"id":null,"title":"c"}"#] {
        assert_eq!(ids(text, Format::Jsonl)[0].get_version_num(), 5);
    }
    assert_eq!(
        errors(r#"{"id":[1],"title":"a"}"#, Format::Jsonl),
        ["1 id must be a UUID, or a text or number"]
    );
}

#[test]
fn completion_follows_from_its_moment() {
    let read = |text: &str| tasks(text, Format::Jsonl).remove(0);
    let at = r#""completed_at":"2026-01-31T10:00:00Z""#;
    assert!(read(&format!(r#"{{"title":"a",{at}}}"#)).task.completed);
    let open = read(r#"{"title":"a","completed_at":null}"#);
    assert!(!open.task.completed && open.sent.contains(&"completed"));
    assert!(read(r#"{"title":"a","completed":true}"#).task.completed);
    assert_eq!(
        errors(
            &format!(r#"{{"title":"a","completed":false,{at}}}"#),
            Format::Jsonl
        ),
        ["1 completed_at must be null, because completed is false"]
    );
}

#[test]
fn tasks_without_a_creation_stay_in_the_order_of_the_file() {
    let read = tasks("title\na\nb\n", Format::Csv);
    assert!(read[0].kept.created_at > read[1].kept.created_at);
}

/// Pseudo-random numbers (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

const SNIPPETS: [&[u8]; 20] = [
    b"\"",
    b"\n",
    b"\r",
    b",",
    b";",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\",
    b"\\ud800",
    b"null",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"'=",
    b"{\"tasks\":[",
    b"1e999",
    b"\"title\":",
    "é".as_bytes(),
];

/// Changes a few places of a file.
fn mutate(text: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(text.len() + 1);
        let end = (at + numbers.below(12)).min(text.len());
        let new = match numbers.below(4) {
            0 => Vec::new(),
            1 => vec![u8::try_from(numbers.below(256)).unwrap()],
            2 => SNIPPETS[numbers.below(SNIPPETS.len())].to_vec(),
            _ => {
                let from = numbers.below(text.len() + 1);
                text[from..(from + 40).min(text.len())].to_vec()
            }
        };
        text.splice(at..end, new);
    }
}

/// Reads so many mutated files. Every one is read to its end, and quickly.
fn read_mutated(count: u64) {
    let json = format!("{EXPORTED}\n{{\"title\":\"b\"}}\n");
    let list = format!("{{\"tasks\": [\n{EXPORTED},\n{{\"title\":\"b\"}}],\"count\":2}}");
    let table = as_csv(EXPORTED) + &csv_row("{\"title\":\"b\",\"completed\":true}");
    let files = [
        (json, Format::Jsonl),
        (list, Format::Jsonl),
        (table, Format::Csv),
    ];
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let (mut good, mut bad) = (0, 0);
    for (number, (text, format)) in (0..count).zip(files.iter().cycle()) {
        let mut text = text.clone().into_bytes();
        mutate(&mut text, &mut numbers);
        let start = Instant::now();
        for (_, task) in read(&text, *format) {
            match task {
                Ok(_) => good += 1,
                Err(errors) => bad += usize::from(!errors.is_empty()),
            }
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "file {number}: {took:?}");
    }
    assert!(good > 0 && bad > 0, "{good} good, {bad} bad");
}

#[test]
fn mutated_files_never_crash_a_reader() {
    read_mutated(20_000);
}

#[test]
#[ignore = "takes a minute; scripts/check attack runs it"]
fn a_million_mutated_files_never_crash_a_reader() {
    read_mutated(1_000_000);
}
