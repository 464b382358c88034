package addr

import (
	"cmp"
	"strconv"
	"strings"
)

// ModuleStep is one module of a path.
type ModuleStep struct {
	Name string
	Key  Key
}

// String is `module.m["k"]`.
func (s ModuleStep) String() string { return "module." + s.Name + s.Key.String() }

// ModuleSteps takes a module path apart; nil for the root's, "".
func ModuleSteps(path string) []ModuleStep {
	var out []ModuleStep
	p := parser{in: path}
	for p.pos < len(path) {
		if p.pos > 0 {
			p.pos++ // the dot
		}
		p.pos += len("module.")
		if p.pos >= len(path) {
			return out
		}
		name, key, err := p.nameKey()
		if err != nil {
			return out
		}
		out = append(out, ModuleStep{name, key})
	}
	return out
}

// JoinModules puts module paths behind one another; any may be "".
func JoinModules(paths ...string) string {
	out := ""
	for _, p := range paths {
		switch {
		case out == "":
			out = p
		case p != "":
			out += "." + p
		}
	}
	return out
}

// ModulePath is the path of steps.
func ModulePath(steps []ModuleStep) string {
	texts := make([]string, len(steps))
	for i, s := range steps {
		texts[i] = s.String()
	}
	return strings.Join(texts, ".")
}

// WithoutModuleKeys is a module path without the keys of instances.
func WithoutModuleKeys(path string) string {
	if !strings.Contains(path, "[") {
		return path
	}
	steps := ModuleSteps(path)
	for i := range steps {
		steps[i].Key = NoKey
	}
	return ModulePath(steps)
}

// In is the address a within a module.
func (a Address) In(module string) Address {
	a.Module = JoinModules(module, a.Module)
	return a
}

// IsModule tells whether a names a whole module.
func (a Address) IsModule() bool { return a.Type == "" && a.Module != "" }

// Covers tells whether b is what a names: a itself, an instance of the block a,
// a resource of the group a, or anything in the module a or in its instances.
func (a Address) Covers(b Address) bool {
	if a == b {
		return true
	}
	if a.IsModule() {
		return ModuleCovers(a.Module, b.Module)
	}
	if a.Module != b.Module || a.Type != b.Type || a.Name != b.Name || a.Key != b.Key && !a.Key.IsNone() {
		return false
	}
	return !a.IsResource() || a.Resource == b.Resource && (a.ResourceKey == b.ResourceKey || a.ResourceKey.IsNone())
}

// ModuleCovers tells whether the module path b is a, an instance of it, or of
// a module within.
func ModuleCovers(a, b string) bool {
	rest, ok := strings.CutPrefix(b, a)
	if !ok || a == "" {
		return a == ""
	}
	return rest == "" || rest[0] == '.' || rest[0] == '['
}

// compareModules orders paths by their text, but number keys by value.
func compareModules(a, b string) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	if i == len(a) || i == len(b) {
		return cmp.Compare(len(a), len(b))
	}
	start := i
	for start > 0 && isDigit(a[start-1]) {
		start--
	}
	if start > 0 && a[start-1] == '[' {
		m, errA := strconv.Atoi(digits(a[start:]))
		n, errB := strconv.Atoi(digits(b[start:]))
		if errA == nil && errB == nil && m != n {
			return cmp.Compare(m, n)
		}
	}
	return cmp.Compare(a[i], b[i])
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func digits(s string) string {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return s[:n]
}
