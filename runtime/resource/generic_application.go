package resource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// genericApplication is a program that is kept running, under a guardian.
type genericApplication struct {
	env  Env
	host Host
	name string

	command     []string
	environment map[string]string
	directory   string
	user        string
	logMax      int64
	logKeep     int64
	stopSignal  unix.Signal
	stopTimeout time.Duration

	process Guarded // nil: never started
}

func newGenericApplication(env Env, host Host, name string, a *attributes) *genericApplication {
	k := &genericApplication{
		env: env, host: host, name: name,
		command:     a.texts("command"),
		environment: a.textMap("environment"),
		directory:   a.text("directory"),
		user:        a.text("user"),
		logMax:      a.size("log_max_size"),
		logKeep:     a.whole("log_keep"),
		stopTimeout: a.duration("stop_timeout"),
	}
	if len(a.problems) == 0 && (len(k.command) == 0 || k.command[0] == "") {
		a.problem("command is empty; write it as [\"program\", \"argument\"]")
	}
	for _, s := range k.command {
		if strings.ContainsRune(s, 0) {
			a.problem("command: an argument holds a zero byte")
		}
	}
	checkEnvironment(k.environment, a)
	if k.logMax < 1024 {
		a.problem("log_max_size = %d bytes is too small; write at least 1KiB", k.logMax)
	}
	if k.logKeep < 0 || k.logKeep > 1000 {
		a.problem("log_keep = %d: write 0 to 1000", k.logKeep)
	}
	if s := a.text("stop_signal"); s != "" {
		k.stopSignal = unix.SignalNum("SIG" + s)
	}
	if k.directory != "" && !filepath.IsAbs(k.directory) {
		k.directory = filepath.Join(env.Dir, k.directory)
	}
	return k
}

func checkEnvironment(environment map[string]string, a *attributes) {
	for name, v := range environment {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(v, 0) {
			a.problem("environment: %q is no name of a variable, or its value holds a zero byte", name)
		}
	}
}

// program is the application's environment: what checks run in too.
func (k *genericApplication) program() (Program, error) {
	p := Program{
		Name: k.env.Group + "/" + k.name,
		Dir:  k.directory,
		Env:  k.env.environ(k.name, k.environment),
		Args: k.command,
	}
	if p.Dir == "" {
		p.Dir = k.env.Dir
	}
	if k.user != "" {
		u, err := lookUpUser(k.user)
		if err != nil {
			return Program{}, err
		}
		p.User = u
		p.Env = withHome(p.Env, k.environment, k.user)
	}
	return p, nil
}

func (k *genericApplication) start(ctx context.Context) error {
	p, err := k.program()
	if err != nil {
		return err
	}
	if st, err := os.Stat(p.Dir); err != nil {
		return fmt.Errorf("directory %s: %w", p.Dir, plain(err))
	} else if !st.IsDir() {
		return fmt.Errorf("directory %s: is no directory", p.Dir)
	}
	if p.Path, err = lookPath(k.command[0], p.Env, p.Dir); err != nil {
		return err
	}
	p.Log = LogFile(k.env.Dir, k.env.Group, k.name)
	p.LogMax, p.LogKeep = k.logMax, int(k.logKeep)
	k.process, err = k.host.Guard(ctx, p)
	if err != nil {
		k.process = nil
		return fmt.Errorf("start %s: %w", p.Path, plain(err))
	}
	return nil
}

// stop asks the process group to end, and kills what is left when ctx ends or
// stop_timeout has passed.
func (k *genericApplication) stop(ctx context.Context, _ func(error)) {
	if k.process == nil {
		return
	}
	if ctx.Err() == nil && k.stopSignal != unix.SIGKILL {
		k.process.Stop(int(k.stopSignal))
		timer := time.NewTimer(k.stopTimeout)
		defer timer.Stop()
		select {
		case <-k.process.Gone():
			return
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	k.process.Kill()
	<-k.process.Gone()
}

func (k *genericApplication) alive() error {
	if k.process == nil {
		return errors.New("not started")
	}
	select {
	case <-k.process.Exited():
		return k.process.ExitError()
	default:
		return nil
	}
}

func (k *genericApplication) exited() <-chan struct{} {
	if k.process == nil {
		return nil
	}
	return k.process.Exited()
}

// LogFile is where a resource's output is kept, in the node's directory dir.
// Names that would leave their directory are escaped.
func LogFile(dir, group, resource string) string {
	return filepath.Join(dir, "log", fileName(group), fileName(resource)+".log")
}

func fileName(name string) string {
	name = strings.NewReplacer("%", "%25", "/", "%2F", "\x00", "%00").Replace(name)
	if strings.HasPrefix(name, ".") {
		name = "%2E" + name[1:]
	}
	return name
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// inherited are the agent's variables that resources see too; all else comes
// from the definition, so that a group finds the same on every node.
var inherited = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR"}

// environ is a resource's environment: what it inherits, what its definition
// adds, and what clusterplan tells it, which can't be overridden.
func (e Env) environ(resource string, own map[string]string) []string {
	vars := map[string]string{}
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok {
			vars[name] = v
		}
	}
	for name, v := range own {
		vars[name] = v
	}
	if vars["PATH"] == "" {
		vars["PATH"] = defaultPath
	}
	if e.BinDir != "" {
		vars["PATH"] = e.BinDir + ":" + vars["PATH"]
	}
	vars["CLUSTERPLAN_CLUSTER"] = e.Cluster
	vars["CLUSTERPLAN_NODE"] = e.Node
	vars["CLUSTERPLAN_GROUP"] = e.Group
	vars["CLUSTERPLAN_RESOURCE"] = resource
	vars["CLUSTERPLAN_EPOCH"] = strconv.FormatUint(e.Epoch, 10)
	vars["CLUSTERPLAN_SOCKET"] = e.Socket
	out := make([]string, 0, len(vars))
	for name, v := range vars {
		out = append(out, name+"="+v)
	}
	slices.Sort(out)
	return out
}

// withHome gives a program that runs as another user that user's home, where
// the definition says nothing else.
func withHome(env []string, own map[string]string, name string) []string {
	u, err := user.Lookup(name)
	if err != nil {
		return env // lookUpUser has told; a number without an entry has no home
	}
	for _, v := range [][2]string{{"HOME", u.HomeDir}, {"USER", u.Username}, {"LOGNAME", u.Username}} {
		if _, stated := own[v[0]]; stated {
			continue
		}
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, v[0]+"=") })
		env = append(env, v[0]+"="+v[1])
	}
	return env
}

// lookPath finds a program as a shell in dir would, by env's PATH.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if err := executable(path); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return "", fmt.Errorf("command not found: %s", path)
			}
			return "", fmt.Errorf("command %s: %w", path, plain(err))
		}
		return path, nil
	}
	var path string
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var denied error
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		file := filepath.Join(d, name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, fs.ErrPermission) && denied == nil {
			denied = fmt.Errorf("command %s: %w", file, plain(err))
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", fmt.Errorf("command not found: %q is in no directory of PATH (%s)", name, path)
}

func executable(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return errors.New("is a directory")
	case st.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("%w: it is not executable", fs.ErrPermission)
	}
	return nil
}

// plain drops the call and path that a message names already.
func plain(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// lookUpUser finds a user by name or number. Only root may run programs as
// another one.
func lookUpUser(name string) (*User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if _, nerr := strconv.ParseUint(name, 10, 32); nerr == nil {
			u, err = user.LookupId(name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("user %q: there is no such user on this node", name)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %q: its id %q is no number", name, u.Uid)
	}
	if int(uid) == os.Geteuid() {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("user %q: only an agent that runs as root can start programs as another user", name)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %q: its group %q is no number", name, u.Gid)
	}
	out := &User{UID: uint32(uid), GID: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("user %q: its groups: %w", name, err)
	}
	for _, g := range groups {
		if id, err := strconv.ParseUint(g, 10, 32); err == nil {
			out.Groups = append(out.Groups, uint32(id))
		}
	}
	return out, nil
}
