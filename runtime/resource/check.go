package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// stated tells whether a definition names a check of its own.
func stated(p spec.Poll) bool { return len(p.Command) > 0 || p.TCP != "" || p.HTTP != "" }

// checkPoll finds what is wrong with a poll.
func checkPoll(p spec.Poll) error {
	n := 0
	for _, is := range []bool{len(p.Command) > 0, p.TCP != "", p.HTTP != ""} {
		if is {
			n++
		}
	}
	if n > 1 {
		return errors.New("command, tcp and http exclude each other; keep one")
	}
	if p.TCP != "" {
		if _, port, err := net.SplitHostPort(p.TCP); err != nil || port == "" {
			return fmt.Errorf("tcp = %q is no host:port", p.TCP)
		}
	}
	if p.HTTP != "" {
		u, err := url.Parse(p.HTTP)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("http = %q is no URL that begins with http:// or https://", p.HTTP)
		}
	}
	return nil
}

// check runs one stated check within its time-out.
func (r *Resource) check(ctx context.Context, p spec.Poll) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout.D())
	defer cancel()
	var what string
	var err error
	switch {
	case len(p.Command) > 0:
		what = "command " + strings.Join(p.Command, " ")
		err = r.checkCommand(ctx, p.Command)
	case p.TCP != "":
		what = "tcp " + p.TCP
		err = checkTCP(ctx, p.TCP)
	default:
		what = "http " + p.HTTP
		err = checkHTTP(ctx, p.HTTP)
	}
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: no answer within %s", what, p.Timeout)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (r *Resource) checkCommand(ctx context.Context, command []string) error {
	p, err := r.kind.program()
	if err != nil {
		return err
	}
	p.Args, p.Log = command, ""
	if p.Path, err = lookPath(command[0], p.Env, p.Dir); err != nil {
		return err
	}
	return r.host.Run(ctx, p)
}

// Run runs a command as checks run: as the resource's user, with its environment,
// until it ends or ctx does. Its input comes from the file in, its output goes to
// the file out, where they are named.
func (r *Resource) Run(ctx context.Context, command []string, in, out string) error {
	p, err := r.kind.program()
	if err != nil {
		return err
	}
	path, err := lookPath(command[0], p.Env, p.Dir)
	if err != nil {
		return err
	}
	p.Path, p.Log, p.Args = path, "", command
	script, file := "", ""
	switch {
	case in != "":
		script, file = `f=$0; exec "$@" <"$f"`, in
	case out != "":
		script, file = `f=$0; exec "$@" >"$f"`, out
	}
	if script != "" { // the user's own shell opens the file: what that one may not, nobody does for it
		p.Path, p.Args = "/bin/sh", append([]string{"sh", "-c", script, file, path}, command[1:]...)
	}
	return r.host.Run(ctx, p)
}

// User is the id of the user that the resource runs as, -1: the monitor's own.
func (r *Resource) User() (int, error) {
	p, err := r.kind.program()
	if err != nil {
		return 0, err
	}
	if p.User == nil {
		return -1, nil
	}
	return int(p.User.UID), nil
}

func checkTCP(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return shorten(err)
	}
	return conn.Close()
}

// client asks health checks: straight (no proxy), one connection each, and a
// redirect is an answer.
var client = &http.Client{
	Transport: &http.Transport{
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
		TLSHandshakeTimeout:    10 * time.Second,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func checkHTTP(ctx context.Context, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "clusterplan")
	resp, err := client.Do(req)
	if err != nil {
		return shorten(err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// shorten drops what the check's own name says already ("Get URL: dial tcp
// host:port: ...").
func shorten(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		err = op.Err
	}
	return err
}
