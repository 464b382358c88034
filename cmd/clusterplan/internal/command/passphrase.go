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
	return func(_ context.Context, keyFile string) ([]byte, error) {
		fmt.Fprintf(a.err, "Passphrase of %s: ", keyFile)
		text, err := term.ReadPassword(fd)
		fmt.Fprintln(a.err)
		if err != nil {
			return nil, fmt.Errorf("read the passphrase of %s: %w", keyFile, err)
		}
		return text, nil
	}
}
