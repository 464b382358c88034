package sshlab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Password is that of each of a host's users.
const Password = `pass word'"`

// The users of a host who may be root by sudo, which asks the one for Password and
// lets the other in.
const (
	UserAsked = "askme"
	UserLetIn = "letin"
)

// Within runs a command in the host's mounts, as its root.
func (h *Host) Within(argv ...string) error {
	if out, err := exec.Command("nsenter", append([]string{"-m", "-t", fmt.Sprint(h.PID())}, argv...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w: %s", argv, err, out)
	}
	return nil
}

// Users gives a host that is up its users, until it is stopped: with the real sudo,
// which has to be there, and PAM's real check of the password. The directories
// above the lab's are opened, so that they get at their keys.
func (h *Host) Users() error {
	for d := h.lab.Dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	// openssl passwd -6 -salt test
	const hash = "$6$test$2WAfkTFk0M6epM4QRvjVECwHUzaiZUPDdA7BA.ILWnYlmqluDJ5LuO6YWTYKiUh7Fi1cg7PzK7yFUJumrK0N/0"
	etc := map[string]string{"passwd": "", "shadow": "", "group": "",
		"sudoers":    "Defaults !secure_path\nroot ALL=(ALL) ALL\n" + UserAsked + " ALL=(ALL) ALL\n" + UserLetIn + " ALL=(ALL) NOPASSWD: ALL\n",
		"pam.d/sudo": "auth required pam_unix.so nodelay\naccount required pam_permit.so\nsession required pam_permit.so\n"}
	for i, user := range []string{UserAsked, UserLetIn} {
		etc["passwd"] += fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", user, 60100+i, 60100+i, h.lab.Dir)
		etc["shadow"] += fmt.Sprintf("%s:%s:20000:0:99999:7:::\n", user, hash)
		etc["group"] += fmt.Sprintf("%s:x:%d:\n", user, 60100+i)
	}
	mode := map[string]os.FileMode{"passwd": 0o644, "group": 0o644, "shadow": 0o600, "sudoers": 0o440, "pam.d/sudo": 0o644}
	for name, text := range etc {
		if name == "passwd" || name == "shadow" || name == "group" {
			have, err := os.ReadFile("/etc/" + name)
			if err != nil {
				return err
			}
			text = string(have) + text
		}
		file := filepath.Join(h.Dir, "etc", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), mode[name]); err != nil {
			return err
		}
		if err := h.Within("mount", "--bind", file, "/etc/"+name); err != nil {
			return err
		}
	}
	return nil
}
