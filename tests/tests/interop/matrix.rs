//! All meshes, some at a time, and the table of what came of them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use crate::mesh::{Link, Mesh, Mix, ROLES};
use crate::programs::{Programs, Side};
use crate::scenarios::{self, COLUMNS, Story};

/// Meshes that run at the same time: each is five to seven processes that mostly wait for each other.
const AT_ONCE: usize = 4;

/// One mesh, and what came of it.
#[derive(Debug)]
pub(crate) struct Row {
    mix: Mix,
    link: Link,
    /// How many scenarios went well; the one after them failed, if there is one.
    passed: usize,
    failure: Option<String>,
    logs: Option<PathBuf>,
    took: Duration,
}

/// What is run: all whose name has one of these in it; all, if there are none.
pub(crate) fn chosen(filters: &[String]) -> Vec<(Mix, Link)> {
    let all = Link::ALL.into_iter().flat_map(|link| Mix::all().into_iter().map(move |mix| (mix, link)));
    let fits = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    all.filter(|(mix, link)| fits(&format!("{link}/{mix}"))).collect()
}

/// Runs these meshes.
pub(crate) async fn run(programs: &Programs, meshes: Vec<(Mix, Link)>) -> Vec<Row> {
    let numbers = Arc::new(AtomicUsize::new(0));
    let running = stream::iter(meshes).map(|(mix, link)| {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        async move {
            let row = one(programs, mix, link, number).await;
            if let Some(failure) = &row.failure {
                println!("{link}/{mix}: {} failed: {failure}", COLUMNS.get(row.passed).unwrap_or(&"the start"));
            }
            row
        }
    });
    running.buffered(AT_ONCE).collect().await
}

async fn one(programs: &Programs, mix: Mix, link: Link, number: usize) -> Row {
    let begun = Instant::now();
    let mut row = Row { mix, link, passed: 0, failure: None, logs: None, took: Duration::ZERO };
    match Mesh::new(programs, mix, link, number) {
        Err(failure) => row.failure = Some(failure),
        Ok(mut mesh) => {
            let mut story = Story::default();
            for column in COLUMNS {
                match scenarios::run(column, &mut mesh, &mut story).await {
                    Ok(()) => row.passed += 1,
                    Err(failure) => {
                        row.failure = Some(failure);
                        row.logs = Some(mesh.keep());
                        break;
                    }
                }
            }
        }
    }
    row.took = begun.elapsed();
    row
}

/// The rows as a table.
#[derive(Debug)]
pub(crate) struct Matrix(pub(crate) Vec<Row>);

impl Matrix {
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(|row| row.failure.is_some())
    }

    pub(crate) fn logs(&self) -> impl Iterator<Item = (&Row, &Path)> {
        self.0.iter().filter_map(|row| Some((row, row.logs.as_deref()?)))
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}", "link")?;
        ROLES.iter().try_for_each(|role| write!(f, "  {role:<9}"))?;
        COLUMNS.iter().try_for_each(|column| write!(f, "  {column}"))?;
        writeln!(f, "  seconds")?;
        for row in &self.0 {
            write!(f, "{:<11}", row.link.to_string())?;
            for side in row.mix.0 {
                write!(f, "  {:<9}", if side == Side::Theirs { "theirs" } else { "ours" })?;
            }
            for (at, column) in COLUMNS.iter().enumerate() {
                let cell = match at.cmp(&row.passed) {
                    std::cmp::Ordering::Less => "ok",
                    std::cmp::Ordering::Equal => "RED",
                    std::cmp::Ordering::Greater => "-",
                };
                write!(f, "  {cell:<width$}", width = column.len())?;
            }
            writeln!(f, "  {:.1}", row.took.as_secs_f64())?;
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = COLUMNS.get(self.passed).unwrap_or(&"the start");
        write!(f, "{}/{} {column}: {}", self.link, self.mix, self.failure.as_deref().unwrap_or("well"))
    }
}
