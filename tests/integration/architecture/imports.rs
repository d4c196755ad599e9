//! Finds the files of the modules that a source file uses in `use` declarations and in paths in code.

use std::collections::{BTreeMap, BTreeSet};

/// The source files below `src`, by path.
pub struct Sources {
    files: BTreeMap<String, Source>,
}

struct Source {
    text: String,
    tokens: Vec<String>,
    /// The path of the module. It begins with the name of the crate.
    module: Vec<String>,
    /// The modules that this file declares.
    children: BTreeSet<String>,
}

/// The name of the library crate in paths in the binary.
const LIBRARY: &str = "stream_manager";
const BINARY: &str = "main";

impl Sources {
    pub fn new(files: Vec<(String, String)>) -> Self {
        let source = |(file, text): (String, String)| {
            let tokens = without_tests(&tokens(&text));
            let (tokens, children) = without_module_declarations(&tokens);
            let module = module_of(&file);
            (file, Source { text, tokens, module, children })
        };
        Self { files: files.into_iter().map(source).collect() }
    }

    /// The path and the text of each file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(file, source)| (file.as_str(), source.text.as_str()))
    }

    /// The tokens of a file, without comments, text literals and tests.
    pub fn tokens(&self, file: &str) -> &[String] {
        &self.files[file].tokens
    }

    /// The other files that `file` uses, each with one of the paths by which `file` uses it.
    pub fn used_by(&self, file: &str) -> BTreeMap<&str, String> {
        let source = &self.files[file];
        let (imports, code) = split_imports(&source.tokens);
        let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut used = Vec::new();
        for (path, name) in &imports {
            if let Some(path) = source.absolute(path, &names) {
                names.insert(name, path.clone());
                used.push(path);
            }
        }
        // Paths in code can begin with imported names.
        used.extend(paths(&code).iter().filter_map(|path| source.absolute(path, &names)));
        let mut files = BTreeMap::new();
        for path in used {
            if let Some(used) = self.file_of(&path).filter(|used| *used != file) {
                files.entry(used).or_insert_with(|| path.join("::"));
            }
        }
        files
    }

    /// The file of the deepest module on a path. The rest of the path names an item in this module.
    fn file_of(&self, path: &[String]) -> Option<&str> {
        let modules = (1..=path.len()).rev().map(|length| &path[..length]);
        let find = |module: &[String]| self.files.iter().find(|(_, source)| source.module == module);
        modules.filter_map(find).map(|(file, _)| file.as_str()).next()
    }
}

impl Source {
    /// Converts a path to a path from the crate root. `None` for paths to other crates and to items of this file.
    fn absolute(&self, path: &[String], names: &BTreeMap<&str, Vec<String>>) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut start = match first.as_str() {
            "crate" => self.module[..1].to_vec(),
            LIBRARY => vec![LIBRARY.to_owned()],
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len() - 1].to_vec(),
            name => match names.get(name) {
                Some(imported) => imported.clone(),
                None if self.children.contains(name) => [&self.module[..], &[name.to_owned()]].concat(),
                None => return None,
            },
        };
        for segment in rest {
            match segment.as_str() {
                "super" => _ = start.pop(),
                "self" | "*" => {}
                name => start.push(name.to_owned()),
            }
        }
        Some(start)
    }
}

/// The module of a file: `store::dynamodb` for `store/dynamodb/mod.rs`. `main.rs` and `commands` belong to the binary.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let root = if path == BINARY || path.starts_with("commands") { BINARY } else { LIBRARY };
    let modules = path.split('/').filter(|part| !["lib", BINARY].contains(part));
    [root].into_iter().chain(modules).map(str::to_owned).collect()
}

/// Splits code into names, `::` and single characters. Skips comments, text literals and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(length) = text_literal(rest) {
            length
        } else if is_name(first) {
            let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the string, byte or character literal, or of the lifetime, at the start of `code`.
fn text_literal(code: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let rest = code.strip_prefix(prefix).map(|rest| rest.trim_start_matches('#'));
        rest.is_some_and(|rest| rest.starts_with('"')) || (*prefix != "r" && code.starts_with(&format!("{prefix}'")))
    })?;
    let literal = &code[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = &literal[..literal.find('"')?];
        let start = prefix.len() + hashes.len() + 1;
        let end = format!("\"{hashes}");
        return Some(code[start..].find(&end).map_or(code.len(), |at| start + at + end.len()));
    }
    let quote = literal.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
    let mut escaped = false;
    let mut characters = literal.char_indices().skip(1);
    if quote == '\'' {
        let (_, first) = characters.next()?;
        if first != '\\' && literal.chars().nth(2) != Some('\'') {
            let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            return Some(prefix.len() + 1 + literal[1..].find(|c| !name(c)).unwrap_or(literal.len() - 1));
        }
        escaped = first == '\\';
    }
    for (at, character) in characters {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    Some(code.len())
}

/// Removes items with `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].iter().take(ATTRIBUTE.len()).eq(ATTRIBUTE.iter()) {
            at = end_of_item(tokens, at + ATTRIBUTE.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The position after an item, which ends with `;` or with a closing brace.
fn end_of_item(tokens: &[String], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        let braces_end = token == "}" && tokens.get(at + 1).is_none_or(|next| next != ";");
        if depth == 0 && (token == ";" || braces_end) {
            return at + 1;
        }
    }
    tokens.len()
}

/// Removes each `mod name;`, and also returns the names.
fn without_module_declarations(tokens: &[String]) -> (Vec<String>, BTreeSet<String>) {
    let (mut kept, mut names, mut at) = (Vec::new(), BTreeSet::new(), 0);
    while at < tokens.len() {
        match &tokens[at..] {
            [keyword, name, end, ..] if keyword == "mod" && end == ";" => {
                names.insert(name.clone());
                at += 3;
            }
            _ => {
                kept.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    (kept, names)
}

type Import = (Vec<String>, String);

/// The imports, each with the name that it imports, and the code without its `use` declarations.
fn split_imports(tokens: &[String]) -> (Vec<Import>, Vec<String>) {
    let (mut imports, mut code, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        // `use<'a>` in a bound is not a declaration.
        if tokens[at] == "use" && tokens.get(at + 1).is_some_and(|next| next != "<") {
            at = import_tree(tokens, at + 1, &[], &mut imports);
        } else {
            code.push(tokens[at].clone());
            at += 1;
        }
    }
    (imports, code)
}

/// Reads one tree of a `use` declaration, and returns the position after it.
fn import_tree(tokens: &[String], mut at: usize, prefix: &[String], imports: &mut Vec<Import>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens[at].as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens[at] != "}" {
                    at = import_tree(tokens, at, &path, imports);
                    at += usize::from(tokens[at] == ",");
                }
                return at + 1;
            }
            "as" => {
                imports.push((path, tokens[at + 1].clone()));
                return at + 2;
            }
            "," | "}" | ";" => {
                let own_name = path.iter().rfind(|segment| *segment != "self").cloned().unwrap_or_default();
                imports.push((path, own_name));
                return at;
            }
            segment => {
                path.push(segment.to_owned());
                at += 1;
            }
        }
    }
}

/// The paths in code that have at least two segments.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let is_name = |token: &String| token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let (mut paths, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let mut path = Vec::new();
        while is_name(&tokens[at]) {
            path.push(tokens[at].clone());
            if tokens.get(at + 1).is_none_or(|next| next != "::")
                || tokens.get(at + 2).is_none_or(|next| !is_name(next))
            {
                break;
            }
            at += 2;
        }
        if path.len() > 1 {
            paths.push(path);
        }
        at += 1;
    }
    paths
}

#[test]
fn paths_are_found_in_imports_and_code() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let sources = Sources::new(vec![
        file("lib.rs", "pub mod a;\npub mod b;\npub mod c;"),
        file("a/mod.rs", "mod x; use crate::b::{self as other, Item, deep::{One, Two}}; fn f() { x::run(); }"),
        file(
            "a/x.rs",
            "use super::Y; /* crate::c */ const T: &str = \"crate::c\\\"\"; const Q: char = '\"'; // crate::c",
        ),
        file("b/mod.rs", "pub mod deep; #[cfg(test)] mod tests { use crate::a; } fn f<'a>() -> crate::c::T<'a> {}"),
        file("b/deep.rs", "use crate::{a, c as alias}; fn f() { alias::g(a::x::h); r#\"crate::b\"#; b'\\''; }"),
        file("c.rs", "fn f() { c::g() }"),
        file("main.rs", "mod commands; use stream_manager::{a, b::deep}; fn main() { commands::run() }"),
        file("commands/mod.rs", "pub fn run() { stream_manager::c::f(); crate::main() }"),
    ]);
    let used = |file: &str| sources.used_by(file).into_keys().collect::<Vec<_>>();
    assert_eq!(used("lib.rs"), [""; 0]);
    assert_eq!(used("a/mod.rs"), ["a/x.rs", "b/deep.rs", "b/mod.rs"]);
    assert_eq!(used("a/x.rs"), ["a/mod.rs"]);
    assert_eq!(used("b/mod.rs"), ["c.rs"]);
    assert_eq!(used("b/deep.rs"), ["a/mod.rs", "a/x.rs", "c.rs"]);
    assert_eq!(used("c.rs"), [""; 0]);
    assert_eq!(used("main.rs"), ["a/mod.rs", "b/deep.rs", "commands/mod.rs"]);
    assert_eq!(used("commands/mod.rs"), ["c.rs", "main.rs"]);
}
