use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nsm_sdk::identity::{Policy, PolicySet, Rule};
use regex::Regex;

use crate::{PolicyError, RegoPolicy};

/// The word that, given alone in place of masks, lets everybody in.
pub const ALLOW_ALL: &str = "allow-all";

/// Where the reference keeps its policies, relative to the working directory.
const STOCK: &str = "etc/nsm/opa";

/// A directory of policies holds some ten.
const MOST: usize = 10_000;

/// The policies that masks choose, from the working directory, from `/`, and from the stock ones. See [`Masks`].
///
/// # Errors
/// [`PolicyError`]: a program that gets one should not start.
pub fn load<M: AsRef<str>>(masks: &[M]) -> Result<PolicySet, PolicyError> {
    Masks::default().load(masks)
}

/// Where masks look.
///
/// A mask is a path of a file, or a regular expression that a whole path must match, such as
/// `etc/nsm/opa/common/.*.rego`. Paths are relative to the working directory; those that begin with `etc/nsm/opa` are
/// also looked for below `/`, where manifests mount them. A slash in front restricts a mask to `/`. The stock policies
/// are always there, under `etc/nsm/opa`, with and without a slash; a file of that path takes their place. Hidden files
/// and folders (a name that begins with a dot) are left out: Kubernetes keeps second copies there.
///
/// The order of a set is: stock policies and what stands in for them, then others by path. It decides only which of
/// several that refuse is named in the log.
#[derive(Debug, Clone)]
pub struct Masks {
    here: PathBuf,
    root: PathBuf,
}

impl Default for Masks {
    fn default() -> Self {
        Self { here: PathBuf::from("."), root: PathBuf::from("/") }
    }
}

impl Masks {
    /// Looks in this directory in place of the working directory.
    #[must_use]
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.here = directory.into();
        self
    }

    /// Looks below this directory in place of `/`.
    #[must_use]
    pub fn below(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = root.into();
        self
    }

    /// The policies that these masks choose, each once.
    ///
    /// # Errors
    /// [`PolicyError`]: for a list that is empty and does not say [`ALLOW_ALL`], a mask that matches nothing, a file that
    /// cannot be read or is no policy.
    pub fn load<M: AsRef<str>>(&self, masks: &[M]) -> Result<PolicySet, PolicyError> {
        let masks: Vec<&str> = masks.iter().map(|mask| mask.as_ref().trim()).filter(|mask| !mask.is_empty()).collect();
        match masks.as_slice() {
            [] => return Err(PolicyError::Empty),
            [ALLOW_ALL] => {
                tracing::warn!(target: "nsm::policy", "everybody is let in: {ALLOW_ALL}");
                return Ok(PolicySet::allow_all());
            }
            masks if masks.contains(&ALLOW_ALL) => return Err(PolicyError::AllowAllAmongOthers),
            _ => {}
        }
        let mut chosen = BTreeMap::new();
        for mask in masks {
            let found = self.matching(mask)?;
            chosen.extend(found.into_iter().map(|(path, source)| ((rank(&path), path), source)));
        }
        let rules = chosen.into_values().map(Source::rule).collect::<Result<Vec<_>, _>>()?;
        Ok(PolicySet::of(rules))
    }

    /// By path, without a slash in front: what the mask matches.
    fn matching(&self, mask: &str) -> Result<BTreeMap<String, Source>, PolicyError> {
        let (absolute, bare) = match mask.strip_prefix('/') {
            Some(bare) => (true, bare),
            None => (false, mask),
        };
        let mut places = Vec::new();
        if !absolute {
            places.push(&self.here);
        }
        if absolute || bare.starts_with(STOCK) {
            places.push(&self.root);
        }
        for place in &places {
            let file = place.join(bare);
            if file.is_file() {
                return Ok(BTreeMap::from([(bare.to_owned(), Source::File(file))]));
            }
        }
        let whole = Regex::new(&format!("^(?:{bare})$"))
            .map_err(|source| PolicyError::Mask { mask: mask.to_owned(), source })?;
        let mut found: BTreeMap<String, Source> = stock()
            .filter(|(path, _)| whole.is_match(path))
            .map(|(path, policy)| (path, Source::Stock(policy)))
            .collect();
        // The working directory goes before `/`, and both before what is built in.
        for place in places.iter().rev() {
            let mut files = Vec::new();
            walk(place, &folder(bare), &mut files, mask)?;
            let files = files.into_iter().filter(|path| whole.is_match(path));
            found.extend(files.map(|path| (path.clone(), Source::File(place.join(path)))));
        }
        if found.is_empty() {
            let looked_in = places.iter().map(|place| place.join(folder(bare))).collect();
            return Err(PolicyError::NothingMatches { mask: mask.to_owned(), looked_in });
        }
        Ok(found)
    }
}

/// Where a policy comes from.
enum Source {
    File(PathBuf),
    Stock(Policy),
}

impl Source {
    fn rule(self) -> Result<Rule, PolicyError> {
        let path = match self {
            Self::Stock(policy) => return Ok(policy.into()),
            Self::File(path) => path,
        };
        let text = fs::read_to_string(&path).map_err(|source| PolicyError::Read { path: path.clone(), source })?;
        let policy = RegoPolicy::new(&path.display().to_string(), &text)?;
        tracing::info!(target: "nsm::policy", file = %path.display(), "a policy from a file");
        Ok(Rule::custom(policy))
    }
}

/// The stock policies in the order in which they are asked: what tokens are, before what they say.
fn stock() -> impl Iterator<Item = (String, Policy)> {
    let order = [
        Policy::TokensValid,
        Policy::TokensExpired,
        Policy::TokensChained,
        Policy::ClientAllowed,
        Policy::PrevTokenSigned,
        Policy::NextTokenSigned,
        Policy::ServiceConnection,
    ];
    order.into_iter().map(|policy| (format!("{STOCK}/{}/{}.rego", policy.folder(), policy.name()), policy))
}

fn rank(path: &str) -> usize {
    stock().position(|(stock, _)| stock == path).unwrap_or(usize::MAX)
}

/// The folders that a mask names before its first sign of a pattern.
fn folder(mask: &str) -> PathBuf {
    let folders = mask.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').take_while(|name| !name.contains(|c| "*+?()[]{}|^$\\".contains(c))).collect()
}

/// All files below, as paths from `place`; none, if there is no such folder.
fn walk(place: &Path, folder: &Path, files: &mut Vec<String>, mask: &str) -> Result<(), PolicyError> {
    let path = place.join(folder);
    let failed = |source| PolicyError::Read { path: path.clone(), source };
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if files.len() >= MOST {
            return Err(PolicyError::TooMany { path, most: MOST, mask: mask.to_owned() });
        }
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let below = folder.join(name);
        // Links to folders are not followed: they may lead in a circle.
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(place, &below, files, mask)?;
        } else if entry.path().is_file()
            && let Some(text) = below.to_str()
        {
            files.push(text.to_owned());
        }
    }
    Ok(())
}
