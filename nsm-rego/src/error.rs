use std::fmt;
use std::io;
use std::path::PathBuf;

use nsm_sdk::identity::Policy;

use crate::ALLOW_ALL;

/// Policies could not be loaded. A program that is given such masks should not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The word that lets everybody in stands among masks.
    #[error("{ALLOW_ALL} stands among other policies; give it alone, or leave it out")]
    AllowAllAmongOthers,
    /// No mask was given.
    #[error("the list of policies is empty, which would let everybody in; if that is meant, say {ALLOW_ALL}")]
    Empty,
    /// A mask is no regular expression.
    #[error("the policy mask {mask:?} is no regular expression")]
    Mask {
        /// The mask.
        mask: String,
        /// What is wrong with it.
        #[source]
        source: regex::Error,
    },
    /// A mask finds neither a file nor a stock policy.
    #[error(
        "the policy mask {mask:?} matches nothing: no file in {}, and none of the stock policies {}",
        List(.looked_in.iter().map(|path| path.display().to_string())),
        List(Policy::ALL.iter().map(|policy| format!("etc/nsm/opa/{}/{}.rego", policy.folder(), policy.name())))
    )]
    NothingMatches {
        /// The mask.
        mask: String,
        /// The directories that were searched, each to its depths.
        looked_in: Vec<PathBuf>,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no policy.
    #[error("{file} is no usable policy: {reason}")]
    Rego {
        /// Its path.
        file: String,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// A directory holds more than any set of policies does.
    #[error("{} holds more than {most} files or folders; point the mask {mask:?} at the policies alone", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// The limit.
        most: usize,
        /// The mask that led there.
        mask: String,
    },
    /// A policy calls a function that there is not.
    #[error("{file}, line {line}: there is no function {function}; have the policy do without it")]
    UnknownFunction {
        /// Its path.
        file: String,
        /// Where, from 1.
        line: u64,
        /// The function.
        function: String,
    },
}

/// Words with commas between them.
struct List<I>(I);

impl<I: Iterator<Item = String> + Clone> fmt::Display for List<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.0.clone().enumerate() {
            write!(f, "{}{word}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
