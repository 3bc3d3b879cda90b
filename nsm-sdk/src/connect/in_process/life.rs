use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

/// One life of a program in a mesh that runs in one process: from its start to its end.
///
/// After its end it can do nothing more: what it asks fails, what it serves is not answered, its streams break off.
#[derive(Clone)]
pub struct Life(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    node: Arc<str>,
    over: CancellationToken,
}

impl Life {
    /// A life of the program of that name, on that node.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, node: impl Into<Arc<str>>) -> Self {
        Self(Arc::new(Inner { name: name.into(), node: node.into(), over: CancellationToken::new() }))
    }

    /// The program.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Where it runs.
    #[must_use]
    pub fn node(&self) -> &Arc<str> {
        &self.0.node
    }

    /// Ends it at once, as SIGKILL does.
    pub fn end(&self) {
        self.0.over.cancel();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.over.is_cancelled()
    }

    /// Cancelled at its end.
    #[must_use]
    pub fn over(&self) -> &CancellationToken {
        &self.0.over
    }

    /// Whether this names it, the program or the node; `*` names all.
    pub(super) fn is_called(&self, pattern: &str) -> bool {
        pattern == "*" || pattern == &**self.name() || pattern == &**self.node()
    }
}

impl Default for Life {
    /// Of nobody in particular.
    fn default() -> Self {
        Self::new("", "")
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Life({} on {}{})", self.name(), self.node(), if self.is_over() { ", over" } else { "" })
    }
}
