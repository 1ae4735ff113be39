"""Programs that soulspot starts, with limits on time and output. The daemon's hooks import it."""
