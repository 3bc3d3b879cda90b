//! An interface we made, and what can be done with it later.

use crate::{
    Error, InterfaceName, InterfaceSpec, Netns, Result,
    converge::{converge, delete_in, marked_link, reconcile_in},
    netns::{Lane, work},
    plan::Plan,
    rtnl::{Rtnl, link::LinkFacts},
};

/// What a change cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Changes asked of the kernel over netlink; 0 means that nothing was touched.
    pub writes: usize,
}

/// An interface of ours: where it is and the state it was last given.
///
/// A plain description, not a guard: dropping it leaves the interface in place (a forwarder may restart
/// without cutting its wires). Remove it with [`delete`](Self::delete), or find it again after a restart with
/// [`adopt`](Self::adopt).
#[derive(Debug, Clone)]
pub struct Interface {
    netns: Netns,
    spec: InterfaceSpec,
    index: u32,
    mac: [u8; 6],
}

impl Interface {
    pub(crate) fn made(netns: &Netns, spec: InterfaceSpec, facts: &LinkFacts) -> Self {
        let mac = facts.mac.unwrap_or_default();
        Self { netns: netns.clone(), spec, index: facts.index, mac }
    }

    /// Finds the interface `spec` names, if it is there with the mark of `spec`, and turns it into what `spec`
    /// says; `None` if there is no such interface of ours.
    ///
    /// # Errors
    /// As [`reconcile`].
    pub async fn adopt(netns: &Netns, spec: &InterfaceSpec) -> Result<Option<Self>> {
        spec.validate()?;
        let (netns, spec) = (netns.clone(), spec.clone());
        work(Lane::Quick, move |here| match reconcile_in(here, &netns, &spec) {
            Ok((facts, _)) => Ok(Some(Self::made(&netns, spec, &facts))),
            Err(Error::LinkNotFound { .. } | Error::NameTaken { .. }) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// Where the interface is.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The state it was last given.
    pub fn spec(&self) -> &InterfaceSpec {
        &self.spec
    }

    /// Its number in its namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Changes the interface to what `spec` says. If nothing changes, the kernel is not even asked.
    ///
    /// # Errors
    /// As [`apply`]; the interface keeps (or gets back) its former state.
    pub async fn update(&mut self, spec: &InterfaceSpec) -> Result<Changes> {
        let changes = apply(&self.netns, spec, Some(&self.spec)).await?;
        self.mac = spec.mac.unwrap_or(self.mac);
        self.spec.clone_from(spec);
        Ok(changes)
    }

    /// Removes the interface and its rules. `Ok(false)` if it was gone already.
    ///
    /// # Errors
    /// As [`delete_link`].
    pub async fn delete(&self) -> Result<bool> {
        delete_link(&self.netns, self.spec.name.as_str(), &self.spec.alias).await
    }
}

/// Changes the interface `spec.name` from `previous` to `spec`: only differences are written, and if there are
/// none nothing is read either. Without `previous` it is [`reconcile`].
///
/// # Errors
/// [`Error::InvalidSpec`], also when the names differ; [`Error::LinkNotFound`] if the interface is gone;
/// [`Error::NameTaken`] if another one (without the mark of `previous`) has its name; what the kernel refuses.
/// After a failure what was changed is changed back as far as possible.
pub async fn apply(netns: &Netns, spec: &InterfaceSpec, previous: Option<&InterfaceSpec>) -> Result<Changes> {
    let Some(previous) = previous else {
        return reconcile(netns, spec).await;
    };
    if spec == previous {
        return Ok(Changes::default());
    }
    spec.validate()?;
    let reason = if spec.name != previous.name {
        Some(format!("cannot be renamed to {} while in use: delete and create it", spec.name))
    } else if spec.joined_to != previous.joined_to || place(spec) != place(previous) {
        Some("cannot become part of another relay or VLAN: delete and create it".to_owned())
    } else {
        None
    };
    if let Some(reason) = reason {
        return Err(Error::InvalidSpec { interface: previous.name.to_string(), reason });
    }
    let (netns, spec, previous) = (netns.clone(), spec.clone(), previous.clone());
    work(Lane::Quick, move |here| {
        here.enter(&netns)?;
        let mut rtnl = Rtnl::open()?;
        let facts = marked_link(&mut rtnl, &netns, &spec.name, &previous.alias)?;
        let tables = &mut *netns.tables();
        tables.load(&mut rtnl)?;
        let old = Plan::of(&previous, |rules| Ok(tables.find(&spec.name, rules)))?;
        let translate = (&spec.nat, &spec.alias) != (&previous.nat, &previous.alias)
            && (spec.nat.is_some() || previous.nat.is_some());
        let led = match &spec.vlan {
            Some(vlan) if spec.vlan != previous.vlan => vlan.put(&mut rtnl, &netns, &spec, facts.index)?,
            _ => 0,
        };
        let changes = converge(&mut rtnl, &netns, tables, &spec, &facts, &old, translate)?;
        Ok(Changes { writes: changes.writes + led })
    })
    .await
}

/// The VLAN that an interface is a way into.
fn place(spec: &InterfaceSpec) -> Option<(&InterfaceName, u16)> {
    spec.vlan.as_ref().map(|vlan| (&vlan.uplink, vlan.id))
}

/// Reads the interface's actual state and turns it into what `spec` says: for adopting what an earlier life
/// of this process left. Addresses and permanent neighbours that `spec` does not name are removed; of routes
/// and rules only those made here.
///
/// # Errors
/// As [`apply`].
pub async fn reconcile(netns: &Netns, spec: &InterfaceSpec) -> Result<Changes> {
    spec.validate()?;
    let (netns, spec) = (netns.clone(), spec.clone());
    work(Lane::Quick, move |here| reconcile_in(here, &netns, &spec).map(|(_, changes)| changes)).await
}

/// Removes the interface `name` and the policy and NAT rules that belong to it, if it carries the mark `alias`.
/// `Ok(false)`: no such interface of ours is there; one without the mark is left alone.
///
/// # Errors
/// What the kernel refuses.
pub async fn delete_link(netns: &Netns, name: &str, alias: &str) -> Result<bool> {
    let name: InterfaceName = name.parse()?;
    let (netns, alias) = (netns.clone(), alias.to_owned());
    work(Lane::Slow, move |here| delete_in(here, &netns, &name, &alias, None)).await
}
