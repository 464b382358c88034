package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/shell"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

// environment is what opens what is encrypted.
func environment() seal.Config {
	return seal.Config{IdentityFile: os.Getenv(seal.EnvIdentityFile), Passphrase: os.Getenv(seal.EnvPassphrase)}
}

// setKeys takes the keys from the definition's encryption block and the environment.
func (s *Session) setKeys() {
	c := environment()
	e := s.encryption()
	if e != nil {
		c.Recipients, c.UsePassphrase = e.Recipients, e.Passphrase
	}
	keys, err := seal.New(c)
	if err == nil && e != nil && !keys.Seals() && !s.Diags.HasErrors() { // of the directory's own definition
		err = errors.New("the encryption block has an error; clusterplan validate shows it")
	}
	if err != nil {
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Invalid encryption", Detail: strings.ToUpper(err.Error()[:1]) + err.Error()[1:] + "."}
		switch {
		case s.place.now != nil: // not of the files that were read
			d.Detail = fmt.Sprintf("%s in the definition's directory: %s", e.Range, d.Detail)
		case errors.Is(err, seal.ErrSecretKey): // its line is not for a log
			d.Detail = fmt.Sprintf("%s: %s", e.Range, d.Detail)
		default:
			d.Subject = e.Range.Ptr()
		}
		s.Diags = append(s.Diags, d)
		keys, _ = seal.New(environment())
	}
	s.keys = keys
}

// Encrypted tells whether the definition has the state encrypted.
func (s *Session) Encrypted() bool { return s.encryption() != nil }

// lockToWrite takes the lock for what will change the state. That what is written
// can be read again is seen before, and a state that lies there in plain is
// encrypted first, where the definition has it so.
func (s *Session) lockToWrite(ctx context.Context, what string, wait time.Duration) (statefile.Lock, error) {
	if s.encryption() != nil && !s.keys.Seals() {
		return nil, s.Check() // its block has an error
	}
	if err := s.keys.Check(); err != nil {
		return nil, unwritten(err)
	}
	lock, err := s.lock(ctx, what, wait)
	if err != nil {
		return nil, err
	}
	if err := s.broughtAway(); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	if s.keys.Seals() {
		if _, err := lock.Reseal(false); err != nil {
			return nil, errors.Join(err, lock.Release())
		}
	}
	return lock, nil
}

// unwritten is why nothing is written, and what to do.
func unwritten(err error) error {
	hint := "Nothing was written."
	if file := os.Getenv(seal.EnvIdentityFile); file != "" && errors.Is(err, statefile.ErrSealed) {
		hint += fmt.Sprintf(" The public key that belongs to an identity file is what age-keygen -y %s prints, of an SSH key ssh-keygen -y -f %[1]s.", shell.Quote(file))
	}
	return &view.Hint{Err: err, Hint: hint}
}

// reseal has the state lie there as the definition says: encrypted for those that
// it names now, or, with Options.Decrypt, in plain. It says what was done.
func (s *Session) reseal(ctx context.Context, wait time.Duration) (said []string, err error) {
	if !s.Store.Begun() || !s.keys.Seals() && !s.opts.Decrypt {
		return nil, nil
	}
	if s.keys.Seals() && s.opts.Decrypt {
		return nil, &view.Hint{Err: errors.New("--decrypt-state: the definition has an encryption block, and has the state encrypted"),
			Hint: "Take the block out of the definition, then run init --decrypt-state again."}
	}
	if err := s.keys.Check(); err != nil {
		return nil, unwritten(err)
	}
	lock, err := s.lock(ctx, "init", wait)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if s.opts.Decrypt { // what is left in the journal is encrypted: it goes into the state first
		snap, err := s.settled(ctx, lock)
		if err != nil {
			return nil, err
		}
		if snap.Unfinished > 0 {
			return nil, &view.Hint{Err: errors.New("an apply did not come to its end, and its journal is encrypted"),
				Hint: "Put the encryption block back, apply, and take it out then."}
		}
	}
	done, err := lock.Reseal(true)
	if done && s.keys.Seals() {
		said = append(said, "The state is encrypted, for whom the definition names now.")
		if left := s.Store.InPlain(); len(left) > 0 {
			said = append(said, "Older states lie beside it in plain; remove them when you need them no more: "+strings.Join(left, ", ")+".")
		}
	} else if done {
		said = append(said, "The state is in plain now.")
	}
	return said, err
}

// sealedPlan stands before a plan file that is encrypted, so that it is known for
// one without a key.
const sealedPlan = "clusterplan plan, encrypted with age\n"

// openFile decrypts what a person hands over: a state that was kept, a plan.
func openFile(name string, data []byte) ([]byte, error) {
	if !statefile.Sealed(data) {
		return data, nil
	}
	keys, err := seal.New(environment())
	if err == nil {
		data, err = keys.Open(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}
