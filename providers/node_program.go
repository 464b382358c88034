package providers

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
)

// errNoProgram: there is no program for a host's architecture.
var errNoProgram = errors.New("no program for its architecture")

// program is this program's file for an architecture ("": this one's), and its
// sha256 in hex.
func (p *Nodes) program(arch string) (file, digest string, err error) {
	file = p.env.Program
	given, ok := p.hosts.Programs[arch]
	switch {
	case ok:
		file = given
	case arch != "" && arch != runtime.GOARCH:
		return "", "", fmt.Errorf("%w: the host is %s, and this clusterplan is built for %s; build one for it (CGO_ENABLED=0 GOARCH=%s go build ./cmd/clusterplan) and name it in the provider's block: programs = { %s = \"PATH\" }",
			errNoProgram, arch, runtime.GOARCH, arch, arch)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.programs[file]; d != "" {
		return file, d, nil
	}
	if ok {
		if err := builtFor(file, arch); err != nil {
			return "", "", err
		}
	}
	digest, err = fileDigest(file)
	if err == nil {
		p.programs[file] = digest
	}
	return file, digest, err
}

// machines are the architectures that a program can be checked for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM, "386": elf.EM_386,
	"riscv64": elf.EM_RISCV, "ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390}

// builtFor checks a program that was given for an architecture.
func builtFor(file, arch string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("the program for %s: %w", arch, err)
	}
	defer f.Close()
	if m, ok := machines[arch]; ok && f.Machine != m {
		return fmt.Errorf("the program for %s: %s is built for another architecture (%s)", arch, file, f.Machine)
	}
	return nil
}

func fileDigest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read this program's file: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read this program's file: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
