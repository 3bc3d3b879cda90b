use nsm_chain::{Call, Element, Next, Result};

/// Left in a call that went on to another hop: the path goes on too.
#[derive(Debug, Clone, Copy)]
pub struct Continued;

/// Cuts what stands right of this hop from a path that ends here.
///
/// *Request*: on return, unless the call went on to a further hop ([`Continued`]), segments after this hop's own are
/// stale and are dropped. *Close* passes. It stands inside `Monitor`, so that watchers see the cut path too.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrimPath;

impl Element for TrimPath {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let mut call = next.request(call).await?;
        if call.fact::<Continued>().is_none() {
            let end = |call: &Call| {
                let path = call.body().path.as_ref()?;
                let end = (path.index as usize).saturating_add(1);
                (path.path_segments.len() > end).then_some(end)
            };
            if let Some(end) = end(&call)
                && let Some(path) = &mut call.body_mut().path
            {
                path.path_segments.truncate(end);
            }
        }
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::connection::{Connection, Path, PathSegment};
    use nsm_chain::{Chain, OwnedNext, elements, from_fn};

    fn asked() -> Call {
        let path = Path { index: 0, path_segments: vec![PathSegment::default(); 3] };
        Call::new(Connection { path: Some(path), ..Default::default() })
    }

    #[tokio::test]
    async fn only_a_path_that_ends_here_is_cut() {
        let leaf = Chain::new("nse", elements![TrimPath]).unwrap();
        assert_eq!(leaf.request(asked()).await.unwrap().body().path.as_ref().unwrap().path_segments.len(), 1);
        let on = from_fn(|mut call: Call, next: OwnedNext| {
            call.set_fact(Continued);
            async move { next.request(call).await }
        });
        let middle = Chain::new("nsmgr", elements![TrimPath, on]).unwrap();
        assert_eq!(middle.request(asked()).await.unwrap().body().path.as_ref().unwrap().path_segments.len(), 3);
    }
}
