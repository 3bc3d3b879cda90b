//! Who a workload is, and how it proves it.
