package command

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/term"
)

// passphrase asks for that of a private key on the terminal; nil: there is none.
func (a *app) passphrase() func(context.Context, string) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	if !a.input || a.in != os.Stdin || !term.IsTerminal(fd) {
		return nil
	}
	return func(ctx context.Context, keyFile string) ([]byte, error) {
		fail := func(err error) ([]byte, error) {
			return nil, fmt.Errorf("read the passphrase of %s: %w", keyFile, err)
		}
		before, err := term.GetState(fd)
		if err != nil {
			return fail(err)
		}
		fmt.Fprintf(a.err, "Passphrase of %s: ", keyFile)
		defer fmt.Fprintln(a.err)
		type answer struct {
			text []byte
			err  error
		}
		came := make(chan answer, 1)
		go func() {
			text, err := term.ReadPassword(fd)
			came <- answer{text, err}
		}()
		select {
		case got := <-came:
			if got.err != nil {
				return fail(got.err)
			}
			return got.text, nil
		case <-ctx.Done(): // Ctrl-C: who reads on ends with the program, and the terminal is left as it was
			_ = term.Restore(fd, before)
			return fail(context.Cause(ctx))
		}
	}
}
