package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/clusterplan/clusterplan/internal/sshconn"
	"github.com/clusterplan/clusterplan/providers"
)

// files are those under a host's root.
type files struct{ h *host }

func (f files) abs(name string) string { return path.Join(f.h.root, name) }

const logEnd = 64 << 10 // of an agent's log, to be shown

func (f files) Read(ctx context.Context, name string) ([]byte, error) {
	l, err := f.h.look(ctx)
	if err != nil {
		return nil, err
	}
	if e, ok, err := l.known(name); ok {
		return e.data, err
	}
	how := "cat"
	if strings.HasSuffix(name, "/"+providers.AgentLog) {
		how = fmt.Sprintf("tail -c %d", logEnd)
	}
	out, err := f.h.run(ctx, fmt.Sprintf("%sf=%s\nif [ -e \"$f\" ] || [ -L \"$f\" ]; then echo there; %s -- \"$f\"; else seeable \"$f\"; echo none; fi", seeable, quote(f.abs(name)), how))
	if err != nil {
		return nil, err
	}
	data, ok := bytes.CutPrefix(out, []byte("there\n"))
	if !ok {
		return nil, fmt.Errorf("%s: %s: %w", f.h.conn, f.abs(name), fs.ErrNotExist)
	}
	return data, nil
}

// writing is the script that writes files, with absolute paths, each in one step
// and in their order: all lie beside their places, on the disk, before the first is
// moved to its own.
func writing(all ...providers.File) string {
	var temps, mode, move, dirs []string
	var text strings.Builder
	modes := map[fs.FileMode][]string{}
	for i, f := range all {
		dir := path.Dir(f.Path)
		temp := fmt.Sprintf("%s$$-%d", quote(dir+"/.clusterplan-tmp-"), i)
		temps = append(temps, temp)
		modes[f.Perm] = append(modes[f.Perm], temp)
		fmt.Fprintf(&text, "printf %%s %s >%s\n", quote(string(f.Data)), temp)
		move = append(move, fmt.Sprintf("mv -f %s %s\n", temp, quote(f.Path)))
		if d := quote(dir); !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	for _, perm := range slices.Sorted(maps.Keys(modes)) {
		if perm != 0o600 { // as umask has them
			mode = append(mode, fmt.Sprintf("chmod %o %s\n", perm, strings.Join(modes[perm], " ")))
		}
	}
	return fmt.Sprintf("%sset -e\numask 077\nmkdir -p %[2]s\ntrap 'rm -f \"$@\"' EXIT\ntrap 'exit 1' HUP INT TERM PIPE\nset -- %[3]s\nrm -f \"$@\"\n%[4]s%[5]sdurable \"$@\"\n%[6]strap - EXIT\ndurable %[2]s\n",
		sshconn.Durable, strings.Join(dirs, " "), strings.Join(temps, " "), &text, strings.Join(mode, ""), strings.Join(move, ""))
}

func (f files) Write(ctx context.Context, all ...providers.File) error {
	var plain []providers.File
	for _, one := range all {
		one.Path = f.abs(one.Path)
		plain = append(plain, one)
		if bytes.IndexByte(one.Data, 0) >= 0 { // no shell has such a word
			return fmt.Errorf("%s: write %s: it is no text", f.h.conn, one.Path)
		}
	}
	if len(all) == 0 {
		return nil
	}
	if _, err := f.h.run(ctx, writing(plain...)); err != nil {
		f.h.changed()
		return err
	}
	for _, one := range all {
		f.put(one.Path, entry{data: one.Data})
	}
	return nil
}

// put notes a file that was written.
func (f files) put(name string, e entry) {
	f.h.noted(func(l *look) {
		l.files[name] = e
		if parts := strings.Split(name, "/"); len(parts) > 2 && parts[0] == providers.NodesDir && !slices.Contains(l.nodes, parts[1]) {
			l.nodes = append(l.nodes, parts[1])
			slices.Sort(l.nodes)
		}
	})
}

// Copy uploads a program. A name under BinDir stands for the content, so that
// what is there with that name is it.
func (f files) Copy(ctx context.Context, local, digest, name string, perm fs.FileMode) error {
	src, err := os.Open(local)
	if err != nil {
		return fmt.Errorf("upload %s: %w", local, err)
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return fmt.Errorf("upload %s: %w", local, err)
	}
	err = explained(f.h.conn.Put(ctx, f.abs(name), src, fi.Size(), sshconn.PutOptions{Mode: perm, SHA256: digest, Parents: true}))
	if err != nil {
		f.h.changed()
		return advised(err)
	}
	f.h.noted(func(l *look) {
		if path.Dir(name) == providers.BinDir && !slices.Contains(l.programs, path.Base(name)) {
			l.programs = append(l.programs, path.Base(name))
			slices.Sort(l.programs)
		}
	})
	return nil
}

// linking is the script that makes name, absolute, a link, in one step.
func linking(target, name string) string {
	return fmt.Sprintf(`%sset -e
umask 077
d=%s
mkdir -p "$d"
t="$d/.clusterplan-tmp-$$"
trap 'rm -f "$t"' EXIT
trap 'exit 1' HUP INT TERM PIPE
rm -f "$t"
ln -s %s "$t"
mv -f "$t" %s
trap - EXIT
durable "$d"
`, sshconn.Durable, quote(path.Dir(name)), quote(target), quote(name))
}

func (f files) Link(ctx context.Context, target, name string) error {
	if _, err := f.h.run(ctx, linking(target, f.abs(name))); err != nil {
		f.h.changed()
		return err
	}
	f.put(name, entry{link: target})
	return nil
}

func (f files) ReadLink(ctx context.Context, name string) (string, error) {
	l, err := f.h.look(ctx)
	if err != nil {
		return "", err
	}
	e, ok, err := l.known(name)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", fmt.Errorf("%s: %s is none of the links that are looked at", f.h.conn, f.abs(name))
	case e.link == "":
		return "", &fs.PathError{Op: "readlink", Path: f.abs(name), Err: syscall.EINVAL}
	}
	return e.link, nil
}

func (f files) List(ctx context.Context, dir string) ([]string, error) {
	l, err := f.h.look(ctx)
	if err != nil {
		return nil, err
	}
	switch dir {
	case providers.BinDir:
		return slices.Clone(l.programs), nil
	case providers.NodesDir:
		return slices.Clone(l.nodes), nil
	}
	if node, name := path.Split(dir); name == providers.DataDirName && path.Dir(path.Clean(node)) == providers.NodesDir {
		if names := l.data[path.Base(node)]; len(names) > 0 { // none: it may be one that can't be seen
			return slices.Clone(names), nil
		}
	}
	out, err := f.h.run(ctx, fmt.Sprintf("%sf=%s\n[ -e \"$f\" ] || { seeable \"$f\"; exit 0; }\ncd \"$f\" && ls -1A", seeable, quote(f.abs(dir))))
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(out) == 0 {
		names = nil
	}
	slices.Sort(names)
	return names, nil
}

// Remove removes, and with the last file the directories above it, up to root.
func (f files) Remove(ctx context.Context, name string) error {
	if name == "" || path.Clean(name) != name || strings.HasPrefix(name, "../") || path.IsAbs(name) {
		return errors.New("nothing to remove is named")
	}
	script := "rm -rf -- " + quote(f.abs(name)) + " || exit 1\n"
	for dir := path.Dir(f.abs(name)); strings.HasPrefix(dir, f.h.root); dir = path.Dir(dir) {
		script += "rmdir " + quote(dir) + " 2>/dev/null || exit 0\n"
	}
	_, err := f.h.run(ctx, script)
	f.h.changed()
	return err
}
