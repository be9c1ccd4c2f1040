"""The memory behind the interfaces of other frameworks; each module needs the package that it is for."""
