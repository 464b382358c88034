// Package seal encrypts what is at rest with age: states, journals, plan files.
//
// What is written is for the recipients, or the passphrase, that a definition
// names; what is read is opened with what the environment gives. A sealed file is
// an ordinary age file: `age --decrypt` reads it without clusterplan.
//
// # What it is good for
//
// It keeps secrets from who can read the files. It is no signature: whoever knows a
// recipient, which is public, can write another file for it.
//
// A passphrase costs a second and 256 MB of memory a file, by design; each file's
// key is therefore worked out once in a process.
package seal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"github.com/clusterplan/clusterplan/statefile"
)

// What is read is opened with one of these.
const (
	EnvIdentityFile = "CLUSTERPLAN_AGE_IDENTITY_FILE"
	EnvPassphrase   = "CLUSTERPLAN_PASSPHRASE"
)

// Config says for whom to write and with what to read.
type Config struct {
	Recipients    []string // of what is written: age1..., ssh-ed25519 ..., ssh-rsa ...
	UsePassphrase bool     // what is written is for the passphrase
	IdentityFile  string   // opens what was written for recipients; "": none
	Passphrase    string   // ""; none

	work int // of a passphrase, as a power of two; default age's. Tests have a lower one.
}

// Keys are statefile.Keys over age. The zero value writes in plain and opens nothing.
type Keys struct {
	config     Config
	recipients []age.Recipient
	scrypt     *remembered // nil: no passphrase was given

	once       sync.Once // the identity file is read when first asked for
	identities []age.Identity
	noIdentity error
}

var _ statefile.Keys = (*Keys)(nil)

// New checks what is to be written for; what opens it is looked at when it is asked for.
func New(c Config) (*Keys, error) {
	k := &Keys{config: c}
	for _, text := range c.Recipients {
		r, err := recipient(text)
		if err != nil {
			return nil, err
		}
		k.recipients = append(k.recipients, r)
	}
	if c.UsePassphrase && len(k.recipients) > 0 {
		return nil, errors.New("what is encrypted with a passphrase can't be for recipients too")
	}
	if c.Passphrase != "" {
		to, err := age.NewScryptRecipient(c.Passphrase)
		if err != nil {
			return nil, err
		}
		from, err := age.NewScryptIdentity(c.Passphrase)
		if err != nil {
			return nil, err
		}
		from.SetMaxWorkFactor(mostWork)
		if c.work > 0 {
			to.SetWorkFactor(c.work)
		}
		k.scrypt = &remembered{to: to, from: from, keys: map[[sha256.Size]byte][]byte{}}
	}
	return k, nil
}

// ErrSecretKey: it is no public key, and is not to be printed.
var ErrSecretKey = errors.New("a secret key stands where recipients are listed; take it out, make a new one, and list what age-keygen calls its public key")

func recipient(text string) (age.Recipient, error) {
	var list []age.Recipient
	var err error
	upper := strings.ToUpper(text)
	switch {
	case strings.Contains(upper, "AGE-SECRET-KEY-"), strings.Contains(upper, "PRIVATE KEY"):
		return nil, ErrSecretKey
	case strings.HasPrefix(text, "ssh-"):
		var r age.Recipient
		r, err = agessh.ParseRecipient(text)
		list = []age.Recipient{r}
	default:
		list, err = age.ParseRecipients(strings.NewReader(text))
	}
	if (err != nil || len(list) != 1) && (strings.HasPrefix(text, "age1") || strings.HasPrefix(text, "ssh-")) {
		return nil, fmt.Errorf("%q is no recipient, though it begins as one: a part of it is missing, or a letter is wrong; copy the whole of what age-keygen calls the public key, or of the .pub file", text)
	}
	if err != nil || len(list) != 1 {
		return nil, fmt.Errorf("%q is no recipient: one begins with age1, ssh-ed25519 or ssh-rsa", text)
	}
	return list[0], nil
}

// Seals tells whether what is written is encrypted.
func (k *Keys) Seals() bool { return k.config.UsePassphrase || len(k.recipients) > 0 }

// Check tells whether what Seal writes can be opened again here. It is asked before
// a state is first written: one that its writer can't read is lost to it.
func (k *Keys) Check() error {
	if !k.Seals() {
		return nil
	}
	if k.config.UsePassphrase {
		if k.scrypt == nil {
			return errors.New("the definition has the state encrypted with a passphrase, and none is given; set " + EnvPassphrase)
		}
		if strings.ContainsAny(k.config.Passphrase, "\r\n") {
			return errors.New("the passphrase in " + EnvPassphrase + " has a line break, at its end perhaps: nobody can type that, as age asks for it, and another's has none; set it without")
		}
		return nil
	}
	if err := k.read(); err != nil {
		return err
	}
	probe, err := k.Seal([]byte("probe"))
	if err != nil {
		return err
	}
	if _, err := k.Open(probe); err != nil {
		return fmt.Errorf("what is written for the recipients of the definition's encryption block could not be read again by this run: %w. Whoever goes from one identity to another needs both meanwhile: a file may hold several, one behind the other", err)
	}
	return nil
}

// Seal encrypts data.
func (k *Keys) Seal(data []byte) ([]byte, error) {
	to := k.recipients
	if k.config.UsePassphrase {
		if k.scrypt == nil {
			return nil, k.Check()
		}
		to = []age.Recipient{k.scrypt}
	}
	if len(to) == 0 {
		return nil, errors.New("encrypt: no recipient is given")
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err == nil {
		_, err = w.Write(data)
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return b.Bytes(), nil
}

// Open decrypts data. Errors wrap statefile.ErrSealed where the key is missing or
// another one, and statefile.ErrDamaged where it was changed.
func (k *Keys) Open(data []byte) ([]byte, error) {
	var with []age.Identity
	if k.scrypt != nil {
		with = append(with, k.scrypt)
	}
	if k.config.IdentityFile != "" {
		if err := k.read(); err != nil {
			return nil, err
		}
		with = append(with, k.identities...)
	}
	head, err := age.ExtractHeader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: its encryption's header can't be read", statefile.ErrDamaged)
	}
	passphrase := bytes.Contains(head, []byte("\n-> scrypt "))
	if len(with) == 0 {
		return nil, missing(passphrase)
	}
	r, err := age.Decrypt(bytes.NewReader(data), with...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none) && passphrase && k.scrypt == nil:
		return nil, missing(true)
	case errors.As(err, &none) && passphrase:
		return nil, fmt.Errorf("%w, and the passphrase in %s does not open it; set the one that it was written with", statefile.ErrSealed, EnvPassphrase)
	case errors.As(err, &none) && len(k.identities) == 0:
		return nil, missing(false)
	case errors.As(err, &none):
		return nil, fmt.Errorf("%w for other recipients: no identity in %s (%s) opens it; use the identity of one of them, or ask who has one to add yours to the recipients",
			statefile.ErrSealed, k.config.IdentityFile, EnvIdentityFile)
	case err != nil:
		return nil, fmt.Errorf("%w: it was changed since it was encrypted (%v)", statefile.ErrDamaged, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, statefile.Limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: it was cut or changed since it was encrypted", statefile.ErrDamaged)
	}
	return plain, nil
}

func missing(passphrase bool) error {
	if passphrase {
		return fmt.Errorf("%w with a passphrase, and none is given; set %s", statefile.ErrSealed, EnvPassphrase)
	}
	return fmt.Errorf("%w, and no key to it is given; set %s to the file with your identity, as age-keygen writes it, or an SSH key", statefile.ErrSealed, EnvIdentityFile)
}

// read reads the identity file, once.
func (k *Keys) read() error {
	k.once.Do(func() { k.identities, k.noIdentity = identities(k.config.IdentityFile) })
	return k.noIdentity
}

func identities(path string) ([]age.Identity, error) {
	if path == "" {
		return nil, missing(false)
	}
	fail := func(err error) error { return fmt.Errorf("the identity file %s (%s): %w", path, EnvIdentityFile, err) }
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fail(errors.Unwrap(err))
	}
	if !fi.Mode().IsRegular() || fi.Size() > 1<<20 {
		return nil, fail(errors.New("it is no file of keys"))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fail(errors.Unwrap(err))
	}
	var list []age.Identity
	var others, key []byte // lines outside of SSH keys; those of the one that is being read
	for line := range bytes.Lines(data) {
		text := bytes.TrimSpace(line)
		begins, ends := bytes.HasPrefix(text, []byte("-----BEGIN ")), bytes.HasPrefix(text, []byte("-----END "))
		if !begins && key == nil {
			others = append(others, line...)
			continue
		}
		key = append(key, line...)
		if !ends {
			continue
		}
		id, err := agessh.ParseIdentity(key)
		if err != nil {
			return nil, fail(errNoSSHKey)
		}
		list, key = append(list, id), nil
	}
	if key != nil {
		return nil, fail(errNoSSHKey)
	}
	own, err := age.ParseIdentities(bytes.NewReader(others))
	if err != nil && (len(list) == 0 || holdsMore(others)) {
		return nil, fail(fmt.Errorf("it holds no age identity (%v); name a file as age-keygen writes it, or an SSH key", err))
	}
	return append(list, own...), nil
}

var errNoSSHKey = errors.New("its SSH key can't be used: it has to be an ed25519 or RSA key without a passphrase of its own")

// holdsMore tells whether there is anything but comments.
func holdsMore(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return true
		}
	}
	return false
}

// mostWork is the work that is done for a passphrase, as a power of two: four times
// what Seal makes, 1 GB of memory. A file that asks for more was not made by it, and
// who wrote it may have wanted nothing but to take the memory.
const mostWork = 20

// remembered is a passphrase, with the keys of the files that it has opened or
// made: to work one out takes long on purpose.
type remembered struct {
	to   *age.ScryptRecipient
	from *age.ScryptIdentity

	mu   sync.Mutex
	keys map[[sha256.Size]byte][]byte // of files, by the stanza that wraps them
}

func (r *remembered) Wrap(key []byte) ([]*age.Stanza, error) {
	s, _, err := r.WrapWithLabels(key)
	return s, err
}

func (r *remembered) WrapWithLabels(key []byte) ([]*age.Stanza, []string, error) {
	s, labels, err := r.to.WrapWithLabels(key)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.keys[sum(s)] = bytes.Clone(key)
	}
	return s, labels, err
}

func (r *remembered) Unwrap(s []*age.Stanza) ([]byte, error) {
	at := sum(s)
	r.mu.Lock()
	key, ok := r.keys[at]
	r.mu.Unlock()
	if ok {
		return bytes.Clone(key), nil
	}
	key, err := r.from.Unwrap(s)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.keys[at] = bytes.Clone(key)
	}
	return key, err
}

func sum(list []*age.Stanza) [sha256.Size]byte {
	h := sha256.New()
	for _, s := range list {
		fmt.Fprintf(h, "%q %q %x\n", s.Type, s.Args, s.Body)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
