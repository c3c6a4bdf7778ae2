"""Problems that several processes share. May import what `problem` may."""
