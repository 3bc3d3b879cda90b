//! The local wire: one veth pair, each end made directly where it belongs.

use nix::libc;

use crate::{
    Changes, Error, Interface, InterfaceSpec, Neighbour, Netns, Result,
    converge::{configure_new, delete_in, forget_nat, forget_rules},
    netns::{Here, Lane, work, work_or_undo},
    rtnl::{
        Rtnl,
        link::{self, LinkFacts},
    },
    vlan,
};

/// How the two ends of a wire learn each other's hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeerNeighbours {
    /// By asking over the wire (ARP, neighbour discovery): the Ethernet payload.
    #[default]
    Learned,
    /// Permanent entries for all addresses of the other end: the IP payload, whose wires carry no broadcasts.
    Permanent,
}

/// A veth pair whose ends are in two namespaces, made in one piece.
#[derive(Debug, Clone)]
pub struct VethWire {
    a: Interface,
    b: Interface,
    neighbours: PeerNeighbours,
}

impl VethWire {
    /// Makes the pair with final names, MTU, hardware addresses, marks, addresses, routes, rules and
    /// neighbours, both ends up.
    ///
    /// If anything fails, or the future is dropped, nothing remains.
    ///
    /// # Errors
    /// [`Error::NameTaken`] naming the end, [`Error::InvalidSpec`], [`Error::NoPrivileges`], or what the kernel
    /// refused.
    ///
    /// ```no_run
    /// # use nsm_kernel::*;
    /// # async fn example() -> Result<()> {
    /// let (client, endpoint) = (Netns::create().await?, Netns::create().await?);
    /// let near = InterfaceSpec::new("nsm-1", "nsm:42")?.with_address("10.0.0.1/31".parse().unwrap());
    /// let far = InterfaceSpec::new("nsm-42", "nsm:42")?.with_address("10.0.0.0/31".parse().unwrap());
    /// let wire = VethWire::create((&client, &near), (&endpoint, &far), PeerNeighbours::Permanent).await?;
    /// wire.delete().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create(
        a: (&Netns, &InterfaceSpec),
        b: (&Netns, &InterfaceSpec),
        neighbours: PeerNeighbours,
    ) -> Result<Self> {
        a.1.validate()?;
        b.1.validate()?;
        let a = (a.0.clone(), a.1.clone());
        let b = (b.0.clone(), b.1.clone());
        work_or_undo(
            Lane::Quick,
            move |here| create_in(here, (&a.0, &a.1), (&b.0, &b.1), neighbours),
            |here, wire: Self| {
                if let Err(error) = wire.delete_in(here) {
                    tracing::warn!(%error, "could not remove a wire nobody waited for");
                }
            },
        )
        .await
    }

    /// The first end.
    pub fn a(&self) -> &Interface {
        &self.a
    }

    /// The second end.
    pub fn b(&self) -> &Interface {
        &self.b
    }

    /// Changes both ends; no netlink message is sent for an end that does not change.
    ///
    /// # Errors
    /// As [`apply`](crate::apply). If the second end fails, the first is changed back.
    pub async fn update(&mut self, a: &InterfaceSpec, b: &InterfaceSpec) -> Result<Changes> {
        let (near, far) = completed((a, self.a.mac()), (b, self.b.mac()), self.neighbours);
        let before = self.a.spec().clone();
        let first = self.a.update(&near).await?;
        match self.b.update(&far).await {
            Ok(second) => Ok(Changes { writes: first.writes + second.writes }),
            Err(error) => {
                if let Err(stuck) = self.a.update(&before).await {
                    tracing::warn!(error = %stuck, "could not restore the first end of a wire");
                }
                Err(error)
            }
        }
    }

    /// Removes the pair and the rules of both ends. `Ok(false)` if it was gone already.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn delete(&self) -> Result<bool> {
        let wire = self.clone();
        work(Lane::Slow, move |here| wire.delete_in(here)).await
    }

    fn delete_in(&self, here: &mut Here) -> Result<bool> {
        let mut deleted = false;
        // Both ends, always: the second call removes what the vanished interface left behind (rules).
        let outcomes = [&self.a, &self.b]
            .map(|end| delete_in(here, end.netns(), &end.spec().name, &end.spec().alias, Some(end.index())));
        for outcome in outcomes {
            deleted |= outcome?;
        }
        Ok(deleted)
    }
}

type End<'a> = (&'a Netns, &'a InterfaceSpec);

fn create_in(here: &mut Here, a: End<'_>, b: End<'_>, neighbours: PeerNeighbours) -> Result<VethWire> {
    here.enter(a.0)?;
    let mut near = Rtnl::open()?;
    here.enter(b.0)?;
    let mut far = Rtnl::open()?;
    let request = link::new_veth(link::new_link(a.1, a.0), link::new_link(b.1, b.0));
    if let Err(error) = near.apply(vec![request]) {
        return Err(name_taken(error, (&mut near, a), (&mut far, b)));
    }
    finish(here, (&mut near, a), (&mut far, b), neighbours).inspect_err(|_| {
        undo((&mut near, a), (&mut far, b));
        for (netns, spec) in [a, b] {
            forget_nat(here, netns, spec);
            vlan::forget(here, netns, spec);
        }
    })
}

fn finish(
    here: &mut Here,
    (near, a): (&mut Rtnl, End<'_>),
    (far, b): (&mut Rtnl, End<'_>),
    neighbours: PeerNeighbours,
) -> Result<VethWire> {
    let near_link = made(near, a)?;
    let far_link = match (near_link.peer, b.1.mac) {
        // Nothing is left to ask for.
        (Some(index), mac @ Some(_)) => LinkFacts { index, mac, ..LinkFacts::default() },
        _ => made(far, b)?,
    };
    let macs = (near_link.mac.unwrap_or_default(), far_link.mac.unwrap_or_default());
    let (near_spec, far_spec) = completed((a.1, macs.0), (b.1, macs.1), neighbours);
    configure_new(here, far, b.0, &far_spec, &far_link)?;
    configure_new(here, near, a.0, &near_spec, &near_link)?;
    far.await_operational(far_link.index)?;
    Ok(VethWire {
        a: Interface::made(a.0, near_spec, &near_link),
        b: Interface::made(b.0, far_spec, &far_link),
        neighbours,
    })
}

fn made(rtnl: &mut Rtnl, (netns, spec): End<'_>) -> Result<LinkFacts> {
    rtnl.link(&spec.name)?.ok_or_else(|| Error::LinkNotFound { name: spec.name.to_string(), netns: netns.id() })
}

/// The pair was made a moment ago by us, so the name alone identifies it (it may not be marked yet).
fn undo((near, a): (&mut Rtnl, End<'_>), (far, b): (&mut Rtnl, End<'_>)) {
    let removed = near.link(&a.1.name).and_then(|found| match found {
        Some(facts) => near.apply(vec![link::delete(facts.index)]),
        None => Ok(()),
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "could not remove a wire that failed");
    }
    forget_rules(near, a.0, &a.1.name);
    forget_rules(far, b.0, &b.1.name);
}

/// EEXIST does not tell which of the two names is taken.
fn name_taken(error: Error, (near, a): (&mut Rtnl, End<'_>), (far, b): (&mut Rtnl, End<'_>)) -> Error {
    if error.errno() != Some(libc::EEXIST) {
        return error;
    }
    for (rtnl, (netns, spec)) in [(near, a), (far, b)] {
        if let Ok(Some(facts)) = rtnl.link(&spec.name) {
            return Error::NameTaken { name: spec.name.to_string(), netns: netns.id(), alias: facts.alias };
        }
    }
    error
}

/// The specs with what creation decided: the hardware addresses, and neighbours if they are to be permanent.
fn completed(
    a: (&InterfaceSpec, [u8; 6]),
    b: (&InterfaceSpec, [u8; 6]),
    neighbours: PeerNeighbours,
) -> (InterfaceSpec, InterfaceSpec) {
    let complete = |(own, mac): (&InterfaceSpec, [u8; 6]), (peer, peer_mac): (&InterfaceSpec, [u8; 6])| {
        let mut spec = own.clone();
        let peer_mac = peer.mac.unwrap_or(peer_mac);
        spec.mac = spec.mac.or(Some(mac));
        if neighbours == PeerNeighbours::Permanent {
            let ips = peer.addresses.iter().map(|address| address.addr());
            spec.neighbours.extend(ips.map(|ip| Neighbour { ip, mac: peer_mac, permanent: true }));
        }
        spec
    };
    (complete(a, b), complete(b, a))
}
