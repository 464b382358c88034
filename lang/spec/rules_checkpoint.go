package spec

import "path"

// checkpoint: either files or a command's output, of a type that runs a program.
func (c *checker) checkpoint(r *Resource) {
	cp := r.Checkpoint
	if cp == nil {
		return
	}
	switch {
	case r.Type == "ip_address":
		c.add(r.Addr, "checkpoint", "Nothing to keep", "Resource %s is an address, which has no files. Put the block into the resource whose files they are.", r.Name)
	case len(cp.Paths) > 0 && (len(cp.Command) > 0 || len(cp.Restore) > 0):
		c.add(r.Addr, "checkpoint", "Files and a command", "A checkpoint keeps files (paths) or a command's output (command, and restore to bring it back), not both. Keep one of them.")
	case len(cp.Paths) == 0 && (len(cp.Command) == 0 || len(cp.Restore) == 0):
		c.add(r.Addr, "checkpoint", "Incomplete checkpoint", "Give paths, or command and restore together: what the one prints the other reads.")
	}
	for _, p := range cp.Paths {
		switch {
		case !path.IsAbs(p) || path.Clean(p) != p:
			c.add(r.Addr, "checkpoint.paths", "No absolute path", "%q is not the absolute path of a file in its shortest form. Write one as /var/lib/app/state.", p)
		case p == "/":
			c.add(r.Addr, "checkpoint.paths", "The whole disk", "A checkpoint keeps at most 16 MiB. Name the files that matter.")
		}
	}
}
