package sshconn

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Files are handled by short scripts for a POSIX shell, busybox's included: they
// work with sudo and where there is no SFTP server, and cost both ends half of what
// SFTP's small packets, each with an answer of its own, would.

const (
	maxRead = 64 << 20

	codeNone, codeDenied, codeDigest, codeDir, codeNoSum, codeWrite = 44, 45, 46, 47, 48, 49
)

// prelude: gone PATH exits with what it means that a path can't be seen: it
// isn't there, or a directory on the way may not be looked into.
const prelude = `LC_ALL=C; export LC_ALL; umask 077
gone() {
	[ -e "$1" ] || [ -L "$1" ] && return 0
	d=$1
	while d=${d%/*}; [ -n "$d" ]; do
		if [ -d "$d" ]; then [ -x "$d" ] || exit 45; exit 44; fi
	done
	exit 44
}
`

// script runs one as root or the login user, as Config.Sudo says, again where
// the connection was lost: all of them may be run twice.
func (c *Conn) script(ctx context.Context, do, name, text string, cmd Command, args ...string) (Result, error) {
	cmd.Argv = append([]string{"sh", "-c", prelude + text, "sh", name}, args...)
	for try := 0; ; try++ {
		r, err := c.Run(ctx, cmd)
		switch {
		case errors.Is(err, ErrUnreachable) && try == 0 && cmd.Stdin == nil && cmd.Stdout == nil:
			continue
		case err != nil:
			return r, fmt.Errorf("%s %s: %w", do, name, err)
		case r.Code == 0:
			return r, nil
		case r.Code == codeNone:
			return r, &fs.PathError{Op: c.String() + ": " + do, Path: name, Err: fs.ErrNotExist}
		case r.Code == codeDenied:
			return r, &fs.PathError{Op: c.String() + ": " + do, Path: name, Err: fs.ErrPermission}
		case r.Code == codeDir:
			return r, fmt.Errorf("%s: %s %s: it is a directory", c, do, name)
		}
		return r, fmt.Errorf("%s: %s %s: %w", c, do, name, said(r))
	}
}

func said(r Result) error {
	if text := strings.TrimSpace(string(r.Stderr)); text != "" {
		return errors.New(text)
	}
	if r.Signal != "" {
		return fmt.Errorf("ended by signal %s", r.Signal)
	}
	return fmt.Errorf("exit code %d", r.Code)
}

// checkPath refuses what a script could take for something else.
func checkPath(do, name string) error {
	if !path.IsAbs(name) || path.Clean(name) != name || name == "/" || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%s %q: not a clean absolute path of a file", do, name)
	}
	return nil
}

// PutOptions say how a file is put.
type PutOptions struct {
	Mode    fs.FileMode // permission bits
	SHA256  string      // hex; "": worked out first
	Parents bool        // directories that are missing are made, 0700
}

// Put makes or replaces a file in one step: it is sent beside it, its digest
// checked there, made durable, and renamed. An upload that is cut off is begun
// again, once, and leaves nothing behind where the host can still be reached. A
// symbolic link is replaced, not followed.
func (c *Conn) Put(ctx context.Context, name string, src io.ReaderAt, size int64, o PutOptions) error {
	if err := checkPath("put", name); err != nil {
		return err
	}
	if o.SHA256 == "" {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(src, 0, size)); err != nil {
			return fmt.Errorf("put %s: read what is to be put: %w", name, err)
		}
		o.SHA256 = hex.EncodeToString(h.Sum(nil))
	}
	u := &upload{c: c, name: name, src: src, size: size, o: o}
	err := u.try(ctx)
	if errors.Is(err, ErrUnreachable) && ctx.Err() == nil {
		err = u.try(ctx)
	}
	if err != nil && len(u.temps) > 0 {
		u.clean(ctx)
	}
	return err
}

// upload is one Put.
type upload struct {
	c     *Conn
	name  string
	src   io.ReaderAt
	size  int64
	o     PutOptions
	temps []string // of attempts that may have left one
}

func (u *upload) try(ctx context.Context) error {
	dir, base := path.Split(u.name)
	if len(base) > 200 {
		base = base[:200]
	}
	temp := dir + "." + base + ".clusterplan-" + random()
	before := slices.Clone(u.temps)
	u.temps = append(u.temps, temp)
	args := append([]string{temp, strconv.FormatUint(uint64(u.o.Mode.Perm()), 8), u.o.SHA256, "stdin", u.parents(), globQuote(base)}, before...)
	r, err := u.c.script(ctx, "put", u.name, putScript, Command{Stdin: io.NewSectionReader(u.src, 0, u.size)}, args...)
	switch r.Code {
	case 0:
	case codeDigest:
		return u.damaged(strings.TrimSpace(string(r.Stdout)))
	case codeNoSum:
		if err = u.readBack(ctx, temp, strings.TrimSpace(string(r.Stdout))); err == nil {
			args[2], args[3] = "-", "there"
			_, err = u.c.script(ctx, "put", u.name, putScript, Command{}, args...)
		}
	}
	if err == nil {
		u.temps = nil
	}
	return err
}

// damaged is the error of a digest that is not the right one, as said by whom.
func (u *upload) damaged(said string) error {
	return fmt.Errorf("%s: put %s: what arrived is not what was sent, whose SHA-256 is to be %s: %s. The host's memory, its disk or that program are at fault", u.c, u.name, u.o.SHA256, said)
}

func (u *upload) parents() string {
	if u.o.Parents {
		return "parents"
	}
	return ""
}

// globQuote makes a find -name pattern of a name.
func globQuote(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

// What an earlier run left because the host died is removed when it is an hour old.
// OpenSSL has the digest in a fifth of the time that many a sha256sum takes.
const putScript = Durable + `p=$1 t=$2 mode=$3 sum=$4 how=$5 parents=$6 base=$7; shift 7
d=${p%/*}; d=${d:-/}
[ -z "$parents" ] || mkdir -p -- "$d" || exit 49
[ ! -d "$p" ] || { rm -f -- "$t"; exit 47; }
trap 'rm -f -- "$t"' EXIT
trap 'exit 49' HUP INT TERM PIPE
[ $# = 0 ] || rm -f -- "$@"
find "$d" -maxdepth 1 -name ".$base.clusterplan-*" -mmin +60 -exec rm -f -- '{}' ';' 2>/dev/null
if [ "$how" = stdin ] && ! cat > "$t"; then
	[ ! -d "$d" ] || [ -w "$d" ] || [ "$(id -u)" = 0 ] || exit 45
	exit 49
fi
if [ "$sum" != - ]; then
	# digest COMMAND PRINTED: takes the first or last word, where it is one.
	s= by= odd=
	digest() {
		for s in "${2%% *}" "${2##* }"; do
			case $s in *[!0-9a-fA-F]*) ;; *) [ ${#s} != 64 ] || { by=$1; return 0; } ;; esac
		done
		odd="$odd$1 prints no digest: $2
" s=
	}
	if command -v openssl >/dev/null 2>&1; then digest '` + "`openssl dgst -sha256`" + `' "$(openssl dgst -sha256 < "$t" 2>&1)"; fi
	if [ "$s" != "$sum" ] && command -v sha256sum >/dev/null 2>&1; then digest sha256sum "$(sha256sum < "$t" 2>&1)"; fi
	[ -n "$s" ] || { trap - EXIT; printf %s "$odd"; exit 48; }
	[ "$s" = "$sum" ] || { echo "$by prints $s"; exit 46; }
fi
chmod "$mode" "$t" || exit 49
durable "$t" || exit 49
mv -f -- "$t" "$p" || exit 49
trap - EXIT
durable "$d" || exit 49
`

// Durable is a shell function that has files and directories on the disk when it
// returns, or says why it isn't: a disk that is full or fails tells that here. A
// sync that takes no files, and a file system that can't do one alone, have all
// synced, of which no host tells an error.
const Durable = `durable() { # PATH...
	w=$(LC_ALL=C sync "$@" 2>&1) && return 0
	case $w in
	*"nvalid argument"*|*"ot supported"*) ;;
	*) if sync /dev 2>/dev/null; then echo "$w" >&2; return 1; fi ;;
	esac
	sync
}
`

// readBack checks a digest where the host has no program for it, or one that
// printed something else.
func (u *upload) readBack(ctx context.Context, temp, odd string) error {
	h := sha256.New()
	if err := u.c.Get(ctx, temp, h); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != u.o.SHA256 {
		said := "read back it has " + got
		if odd != "" {
			said += "; " + odd
		}
		return u.damaged(said)
	}
	return nil
}

// clean removes what attempts may have left, also when ctx is over.
func (u *upload) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	u.c.Run(ctx, Command{Argv: append([]string{"rm", "-f", "--"}, u.temps...)})
}

// Get writes a file's content to w.
func (c *Conn) Get(ctx context.Context, name string, w io.Writer) error {
	if err := checkPath("get", name); err != nil {
		return err
	}
	_, err := c.script(ctx, "get", name, `gone "$1"; [ ! -d "$1" ] || exit 47; cat < "$1"`, Command{Stdout: w})
	return err
}

// ReadFile returns a file's content, of at most 64 MiB.
func (c *Conn) ReadFile(ctx context.Context, name string) ([]byte, error) {
	if err := checkPath("read", name); err != nil {
		return nil, err
	}
	r, err := c.script(ctx, "read", name, `gone "$1"; [ ! -d "$1" ] || exit 47; cat < "$1"`, Command{Limit: maxRead})
	if err == nil && r.Truncated {
		err = fmt.Errorf("%s: read %s: it is larger than %d MiB", c, name, maxRead>>20)
	}
	return r.Stdout, err
}

// List returns the names in a directory, sorted.
func (c *Conn) List(ctx context.Context, name string) ([]string, error) {
	if name != "/" {
		if err := checkPath("list", name); err != nil {
			return nil, err
		}
	}
	r, err := c.script(ctx, "list", name, `gone "$1"; cd -- "$1" || exit 45; [ -r . ] || exit 45
for f in * .*; do case $f in .|..) continue;; esac; { [ -e "$f" ] || [ -L "$f" ]; } && printf '%s\000' "$f"; done; :`, Command{Limit: maxRead})
	if err != nil {
		return nil, err
	}
	if r.Truncated {
		return nil, fmt.Errorf("%s: list %s: too many names", c, name)
	}
	names := strings.Split(strings.TrimSuffix(string(r.Stdout), "\x00"), "\x00")
	if names[0] == "" {
		return nil, nil
	}
	slices.Sort(names)
	return names, nil
}

// Remove removes a file, or a directory with all that lies in it. What isn't
// there is fine.
func (c *Conn) Remove(ctx context.Context, name string) error {
	if err := checkPath("remove", name); err != nil {
		return err
	}
	_, err := c.script(ctx, "remove", name, `rm -rf -- "$1"`, Command{})
	return err
}

// Symlink makes name a symbolic link to target, replacing a link or a file in
// one step.
func (c *Conn) Symlink(ctx context.Context, target, name string) error {
	if err := checkPath("link", name); err != nil {
		return err
	}
	_, err := c.script(ctx, "link", name, Durable+`p=$1 t=$2 n=$3; d=${p%/*}
[ ! -d "$p" ] || [ -L "$p" ] || exit 47
trap 'rm -f -- "$n"' EXIT
ln -s -- "$t" "$n" || exit 49
if [ -d "$p" ]; then mv -fT -- "$n" "$p" 2>/dev/null || { rm -f -- "$p" && mv -f -- "$n" "$p"; } || exit 49
else mv -f -- "$n" "$p" || exit 49; fi
trap - EXIT
durable "${d:-/}" || exit 49`, Command{}, target, name+".clusterplan-"+random())
	return err
}

// ReadLink returns a link's target.
func (c *Conn) ReadLink(ctx context.Context, name string) (string, error) {
	if err := checkPath("read the link", name); err != nil {
		return "", err
	}
	r, err := c.script(ctx, "read the link", name, `gone "$1"; [ -L "$1" ] || { echo "it is no symbolic link" >&2; exit 49; }; readlink -- "$1" || readlink "$1"`, Command{})
	return strings.TrimSuffix(string(r.Stdout), "\n"), err
}

// FileInfo is what Stat tells. A symbolic link is not followed.
type FileInfo struct {
	Mode    fs.FileMode
	Size    int64
	UID     int
	GID     int
	ModTime time.Time
}

// Stat tells of a file.
func (c *Conn) Stat(ctx context.Context, name string) (FileInfo, error) {
	if err := checkPath("stat", name); err != nil {
		return FileInfo{}, err
	}
	r, err := c.script(ctx, "stat", name, `gone "$1"; stat -c '%f %s %u %g %Y' "$1"`, Command{})
	if err != nil {
		return FileInfo{}, err
	}
	info, err := parseStat(string(r.Stdout))
	if err != nil {
		return info, fmt.Errorf("%s: stat %s: %w", c, name, err)
	}
	return info, nil
}

func parseStat(text string) (FileInfo, error) {
	var mode uint32
	var info FileInfo
	var at int64
	if n, err := fmt.Sscanf(strings.TrimSpace(text), "%x %d %d %d %d", &mode, &info.Size, &info.UID, &info.GID, &at); n != 5 || err != nil {
		return FileInfo{}, fmt.Errorf("stat printed %.100q", text)
	}
	info.ModTime = time.Unix(at, 0)
	info.Mode = fs.FileMode(mode & 0o777)
	for _, m := range []struct {
		bits uint32
		mode fs.FileMode
	}{{0o040000, fs.ModeDir}, {0o120000, fs.ModeSymlink}, {0o020000, fs.ModeDevice | fs.ModeCharDevice},
		{0o060000, fs.ModeDevice}, {0o010000, fs.ModeNamedPipe}, {0o140000, fs.ModeSocket}} {
		if mode&0o170000 == m.bits {
			info.Mode |= m.mode
		}
	}
	for bit, m := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			info.Mode |= m
		}
	}
	return info, nil
}
