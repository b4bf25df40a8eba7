"""How the library compares with what else there is, measured with the peers' own packages."""
