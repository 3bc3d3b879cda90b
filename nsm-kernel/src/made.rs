//! Interfaces that are not made over rtnetlink, such as TUN devices.

use std::io;

use crate::{
    Error, Interface, InterfaceSpec, Netns, Result,
    converge::{configure_new, delete_in, forget_nat, forget_rules},
    netns::{Here, Lane, work, work_or_undo},
    rtnl::{Rtnl, link},
};

impl Interface {
    /// An interface that `make` brings into being: it is run in the namespace and must leave a link named `spec.name` there.
    /// That link then gets the mark and everything else that `spec` says, and is set up. What `make` returned, such as the
    /// descriptor that is the other end of a TUN device, is given back with it.
    ///
    /// If anything fails, or the future is dropped, nothing remains.
    ///
    /// # Errors
    /// [`Error::NameTaken`] before `make` is run, [`Error::InvalidSpec`], [`Error::NoPrivileges`], the error of `make`, or what
    /// the kernel refused.
    ///
    /// ```no_run
    /// # use nsm_kernel::{Interface, InterfaceSpec, Netns};
    /// # fn open_tun(name: &str) -> std::io::Result<std::fs::File> { std::fs::File::open("/dev/net/tun") }
    /// # async fn example(workload: Netns) -> nsm_kernel::Result<()> {
    /// let spec = InterfaceSpec::new("nsm-1", "nsm:42")?.with_mtu(1420);
    /// let (interface, tun) = Interface::create_by(&workload, &spec, || open_tun("nsm-1")).await?;
    /// # drop(tun);
    /// interface.delete().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_by<T, F>(netns: &Netns, spec: &InterfaceSpec, make: F) -> Result<(Self, T)>
    where
        F: FnOnce() -> io::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        spec.validate()?;
        let (netns, spec) = (netns.clone(), spec.clone());
        work_or_undo(
            Lane::Quick,
            move |here| create_in(here, &netns, &spec, make),
            |here, (made, other): (Self, T)| {
                let spec = made.spec();
                if let Err(error) = delete_in(here, made.netns(), &spec.name, &spec.alias, Some(made.index())) {
                    tracing::warn!(%error, "could not remove an interface nobody waited for");
                }
                drop(other);
            },
        )
        .await
    }

    /// Waits until the kernel sends packets through a device whose other end, a descriptor of a process, was just opened again. A
    /// device that nobody has open has no queue, and what is sent before the kernel has made one is lost.
    ///
    /// # Errors
    /// What the kernel refuses. An interface that is gone is none: whoever needs it notices.
    pub async fn opened(&self) -> Result<()> {
        let (netns, index) = (self.netns().clone(), self.index());
        work(Lane::Quick, move |here| {
            here.enter(&netns)?;
            Rtnl::open()?.await_opened(index)
        })
        .await
    }
}

fn create_in<T>(
    here: &mut Here,
    netns: &Netns,
    spec: &InterfaceSpec,
    make: impl FnOnce() -> io::Result<T>,
) -> Result<(Interface, T)> {
    here.enter(netns)?;
    let mut rtnl = Rtnl::open()?;
    if let Some(facts) = rtnl.link(&spec.name)? {
        return Err(Error::NameTaken { name: spec.name.to_string(), netns: netns.id(), alias: facts.alias });
    }
    let made = make().map_err(|error| Error::os(format!("make interface {} in {}", spec.name, netns.id()), error))?;
    let configured = rtnl.link(&spec.name).and_then(|found| {
        let facts = found.ok_or_else(|| Error::LinkNotFound { name: spec.name.to_string(), netns: netns.id() })?;
        let mut wanted = Vec::new();
        wanted.extend(spec.mtu.map(|mtu| link::set_mtu(facts.index, mtu)));
        wanted.extend(spec.mac.map(|mac| link::set_mac(facts.index, mac)));
        rtnl.apply(wanted)?;
        configure_new(here, &mut rtnl, netns, spec, &facts)?;
        rtnl.await_opened(facts.index)?;
        let spec = InterfaceSpec { mac: spec.mac.or(facts.mac), ..spec.clone() };
        Ok(Interface::made(netns, spec, &facts))
    });
    match configured {
        Ok(interface) => Ok((interface, made)),
        Err(error) => {
            undo(&mut rtnl, netns, spec);
            forget_nat(here, netns, spec);
            Err(error)
        }
    }
}

/// The name was free a moment ago, so it alone identifies what was made.
fn undo(rtnl: &mut Rtnl, netns: &Netns, spec: &InterfaceSpec) {
    let removed = rtnl.link(&spec.name).and_then(|found| match found {
        Some(facts) => rtnl.apply(vec![link::delete(facts.index)]),
        None => Ok(()),
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "could not remove an interface that failed");
    }
    forget_rules(rtnl, netns, &spec.name);
}
