//! Links between roles.
