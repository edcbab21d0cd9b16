//! YAML with places: what the typed readers do not tell is where something stands, and that a key stands twice.

use granit_parser::{Event, Parser};

use crate::cluster::manifests::Step;
use crate::problems::{Collector, Position, shown};

/// A value and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind {
    Scalar(String),
    List(Vec<Node>),
    /// Keys with their places, and values.
    Mapping(Vec<(String, Position, Node)>),
}

impl Node {
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _, _)| key == name).map(|(_, _, node)| node)
    }

    pub(super) fn entries(&self) -> &[(String, Position, Node)] {
        if let Kind::Mapping(entries) = &self.kind { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Node] {
        if let Kind::List(items) = &self.kind { items } else { &[] }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Kind::Scalar(text) = &self.kind { Some(text) } else { None }
    }

    /// The place that the path leads to, as far as it goes: a key, an item, or the document.
    pub(super) fn place(&self, path: &[Step]) -> Position {
        let Some((step, rest)) = path.split_first() else { return self.at };
        let (at, next) = match step {
            Step::Field(name) => match self.entries().iter().find(|(key, _, _)| key == name) {
                Some((_, at, node)) => (*at, node),
                None => return self.at,
            },
            Step::Item(index) => match self.items().get(*index) {
                Some(node) => (node.at, node),
                None => return self.at,
            },
        };
        if rest.is_empty() { at } else { next.place(rest) }
    }
}

/// The documents of the text. What is not YAML, and keys that stand twice, are told.
pub(super) fn parse(text: &str, problems: &mut Collector<'_>) -> Vec<Node> {
    let mut documents = Vec::new();
    let mut builder = Builder { open: Vec::new(), documents: &mut documents, problems };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => {
                let at = Position { line: span.start.line(), column: span.start.col() + 1 };
                builder.take(event, at);
            }
            Err(error) => {
                let marker = error.marker();
                let at = Position { line: marker.line(), column: marker.col() + 1 };
                builder.problems.push(Some(at), format!("not YAML: {}", error.kind()));
                break;
            }
        }
    }
    documents
}

struct Builder<'a, 'p> {
    /// Collections that are not complete, and the key that waits for its value.
    open: Vec<(Node, Option<(String, Position)>)>,
    documents: &'a mut Vec<Node>,
    problems: &'a mut Collector<'p>,
}

impl Builder<'_, '_> {
    fn take(&mut self, event: Event<'_>, at: Position) {
        match event {
            Event::MappingStart(..) => self.open.push((Node { at, kind: Kind::Mapping(Vec::new()) }, None)),
            Event::SequenceStart(..) => self.open.push((Node { at, kind: Kind::List(Vec::new()) }, None)),
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some((node, _)) = self.open.pop() {
                    self.add(node);
                }
            }
            Event::Scalar(text, ..) => self.add(Node { at, kind: Kind::Scalar(text.into_owned()) }),
            // What an alias stands for has been looked at where it is defined.
            Event::Alias(_) => self.add(Node { at, kind: Kind::Scalar(String::new()) }),
            _ => {}
        }
    }

    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some((Node { kind: Kind::List(items), .. }, _)) => items.push(node),
            Some((Node { kind: Kind::Mapping(entries), .. }, key)) => match key.take() {
                Some((name, at)) => {
                    if entries.iter().any(|(other, _, _)| *other == name) {
                        let what = format!("`{}` stands twice in the same mapping", shown(&name));
                        self.problems.push(Some(at), what);
                    }
                    entries.push((name, at, node));
                }
                None => *key = Some((node.as_text().unwrap_or_default().to_owned(), node.at)),
            },
            Some((Node { kind: Kind::Scalar(_), .. }, _)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Node>, String) {
        let mut problems = Collector::new("f", text);
        let documents = parse(text, &mut problems);
        (documents, problems.finish().iter().map(|problem| format!("{problem}\n")).collect())
    }

    #[test]
    fn a_path_leads_to_its_place() {
        let (documents, problems) = read("a: 1\n---\n# note\nb:\n  - c: x\n    d.e: [1, 2]\n");
        assert_eq!((documents.len(), problems.as_str()), (2, ""));
        let place = |path: &[Step]| documents[1].place(path);
        let field = |name: &str| Step::Field(name.into());
        assert_eq!(place(&[field("b"), Step::Item(0), field("d.e")]), Position { line: 6, column: 5 });
        assert_eq!(
            place(&[field("b"), Step::Item(0), field("d.e"), Step::Item(1)]),
            Position { line: 6, column: 14 }
        );
        assert_eq!(place(&[field("b"), Step::Item(9), field("x")]), Position { line: 5, column: 3 });
        assert_eq!(place(&[]), Position { line: 4, column: 1 });
    }

    #[test]
    fn what_is_not_yaml_and_what_stands_twice_is_told() {
        assert_eq!(read("a: 1\nb: 2\na: 3\n").1, "f:3:1: `a` stands twice in the same mapping\n");
        assert!(read("a: [1\nb: 2\n").1.contains("not YAML"));
        assert!(read("a:\n\t- b\n").1.starts_with("f:2:"), "{}", read("a:\n\t- b\n").1);
    }
}
