"""Programs for those who build and release the project; nothing of this is installed.

roots          Debian and Ubuntu roots by mmdebstrap, with layers over them
deb            `make deb`: the packages for Debian and Ubuntu
compile_core   compiles the modules of the core with mypyc
compiled       `make compiled`: a copy of the tree with the compiled core, for tests and benches
build_hook     the build of a compiled wheel, for hatchling
carried        the Python dependencies of a package: from the release, or carried in it
completion     completion for bash and zsh, from the parsers of the commands
sample_config  the commented sample configuration, from the table of directives
"""
