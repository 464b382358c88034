package spec

import (
	"path"
	"strings"
)

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
		first, _, _ := strings.Cut(p, "/")
		switch {
		case path.Clean(p) != p || strings.HasPrefix(p+"/", "../"):
			c.add(r.Addr, "checkpoint.paths", "No plain path", "%q is no path in its shortest form. Write one as /var/lib/app/state, or as state.txt, which is in the node's directory.", p)
		case p == "/" || p == ".":
			c.add(r.Addr, "checkpoint.paths", "Too much", "A checkpoint keeps at most 16 MiB. Name the files that matter.")
		case nodeFiles[first]:
			c.add(r.Addr, "checkpoint.paths", "The node's own file", "%s in a node's directory is that node's alone. Keep the resource's files in a directory of their own, as files/%s.", first, r.Name)
		}
	}
}

// apart refuses files that two resources of a group keep: what is restored for
// the one is removed or replaced for the other.
func (c *checker) apart(r *Resource, before []Resource) {
	if r.Checkpoint == nil {
		return
	}
	within := func(a, b string) bool { return a == b || strings.HasPrefix(a, b+"/") }
	for _, o := range before {
		if o.Checkpoint == nil {
			continue
		}
		for _, p := range r.Checkpoint.Paths {
			for _, q := range o.Checkpoint.Paths {
				if within(p, q) || within(q, p) {
					c.add(r.Addr, "checkpoint.paths", "Files of two resources", "%s is kept by resource %s and, as %s, by resource %s: a restore of the one would undo that of the other. Have one of them keep it.", p, r.Name, q, o.Name)
				}
			}
		}
	}
}

// nodeFiles are what the agent keeps in a node's directory.
var nodeFiles = map[string]bool{"agent.json": true, "node.crt": true, "node.key": true, "ca.crt": true, "cluster.key": true,
	"data": true, "run": true, "log": true, "bin": true}
