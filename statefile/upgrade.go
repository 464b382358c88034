package statefile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// formats are all that were ever written, oldest first. A state of an older one
// is brought to today's a step at a time: upgrade makes of the format before it
// one of this. Who adds a field that an older program would lose, or gives one
// another meaning, adds a line here, and a state of the format before to
// testdata/formats.
var formats = []struct {
	version string
	upgrade func(*State) error
}{
	{"1.0", nil},
	// Objects know which attributes are sensitive, the state which guarantees were
	// broken, a journal its format. What 1.0 does not say is not so in it.
	{"1.1", func(*State) error { return nil }},
	// The history of applies, with their variables. That of before is not known.
	{"1.2", func(*State) error { return nil }},
	// Sensitive values are digests, of outputs as well. Those of before become it.
	// Records of a journal that were written at once say so.
	{"1.3", func(s *State) error {
		s.DigestKey = s.derivedKey()
		s.hide()
		return nil
	}},
}

// Upgrade reads a snapshot of this or an older format and makes it one of today's;
// format is what it was written in. Errors are Unmarshal's.
func Upgrade(data []byte) (s *State, format string, err error) {
	if s, err = read(data); err != nil {
		return nil, "", err
	}
	format = s.FormatVersion
	return s, format, s.upgrade()
}

// upgrade brings a state whose format this program knows to today's.
func (s *State) upgrade() error {
	at := slices.IndexFunc(formats, func(f struct {
		version string
		upgrade func(*State) error
	}) bool {
		return f.version == s.FormatVersion
	})
	for _, f := range formats[at+1:] {
		if err := f.upgrade(s); err != nil {
			return fmt.Errorf("make a state of format %s one of %s: %w", s.FormatVersion, f.version, err)
		}
		s.FormatVersion = f.version
	}
	return nil
}

// checkVersion refuses what a newer program wrote: even a minor version more
// may hold fields that this one would lose when it writes.
func checkVersion(format, program string) error {
	major, minor, ok := version(format)
	if !ok {
		return fmt.Errorf("%w: its format_version is %q", ErrDamaged, format)
	}
	ownMajor, ownMinor, _ := version(FormatVersion)
	if major > ownMajor || major == ownMajor && minor > ownMinor {
		return fmt.Errorf("%w: %s wrote it in format %s, this program reads up to %s; use that version or a newer one",
			ErrNewer, strings.TrimSpace("clusterplan "+program), format, FormatVersion)
	}
	for _, f := range formats {
		if f.version == format {
			return nil
		}
	}
	return fmt.Errorf("its format %s is older than this program reads (from %s on)", format, formats[0].version)
}

func version(s string) (major, minor int, ok bool) {
	n, err := fmt.Sscanf(s, "%d.%d", &major, &minor)
	return major, minor, n == 2 && err == nil && s == fmt.Sprintf("%d.%d", major, minor)
}

// checkFormat is checkVersion of a run in a journal; before 1.1 none was written.
func (b *Begin) checkFormat() error {
	if b.Format == "" {
		return nil
	}
	err := checkVersion(b.Format, "")
	if errors.Is(err, ErrNewer) {
		return fmt.Errorf("%w: that run was written in format %s, this program reads up to %s; use the clusterplan that began it, or a newer one", ErrNewer, b.Format, FormatVersion)
	}
	return err
}
