//! The pair of views over a mechanism type.

/// Declares a view to read, a view to change, and the two ways to get them from a mechanism.
macro_rules! view {
    ($view:ident, $view_mut:ident, $type_name:path, $as_view:ident, $as_view_mut:ident) => {
        #[doc = concat!("Reads the parameters of a [`", stringify!($type_name), "`] mechanism.")]
        #[derive(Debug, Clone, Copy)]
        pub struct $view<'a>(&'a crate::Mechanism);

        #[doc = concat!("Changes the parameters of a [`", stringify!($type_name), "`] mechanism.")]
        #[derive(Debug)]
        pub struct $view_mut<'a>(&'a mut crate::Mechanism);

        impl crate::Mechanism {
            #[doc = concat!("The parameters, when this is a [`", stringify!($type_name), "`] mechanism.")]
            pub fn $as_view(&self) -> Option<$view<'_>> {
                self.is($type_name).then_some($view(self))
            }

            #[doc = concat!("The parameters to change, when this is a [`", stringify!($type_name), "`] mechanism.")]
            pub fn $as_view_mut(&mut self) -> Option<$view_mut<'_>> {
                self.is($type_name).then_some($view_mut(self))
            }
        }
    };
}

pub(super) use view;
