package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rival is Terraform with a directory of terraform_data resources, which its
// built-in provider makes without touching anything.
type rival struct {
	program, version, dir string
	shape                 string
	objects               int
}

func newRival(ctx context.Context, shape string, objects int) (*rival, error) {
	program, err := exec.LookPath("terraform")
	if err != nil {
		return nil, fmt.Errorf("--vs terraform: %w; install it, or leave the flag out", err)
	}
	r := &rival{program: program, shape: shape, objects: objects}
	if r.dir, err = os.MkdirTemp("", "bench-plan-terraform-"); err != nil {
		return nil, err
	}
	out, err := r.command(ctx, "version", "-json").Output()
	if err == nil {
		var v struct {
			Version string `json:"terraform_version"`
		}
		err = json.Unmarshal(out, &v)
		r.version = v.Version
	}
	if err == nil {
		err = r.write(false)
	}
	if err == nil {
		_, err = spend(r.command(ctx, "init", "-input=false", "-no-color"), nil)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rival) close() { os.RemoveAll(r.dir) }

func (r *rival) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.program, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_CLI_CONFIG_FILE=/dev/null", "TF_LOG=")
	return cmd
}

// write has the directory hold the definition.
func (r *rival) write(changed bool) error {
	return os.WriteFile(filepath.Join(r.dir, "main.tf"), r.definition(changed), 0o600)
}

func (r *rival) definition(changed bool) []byte {
	var b bytes.Buffer
	if r.shape == shapeForEach {
		input := `"tenant ${each.key}"`
		if changed {
			input = `"${tonumber(each.key) % 100 == 0 ? "another tenant" : "tenant"} ${each.key}"`
		}
		// The keys are a local, for Terraform works out for_each once an instance.
		fmt.Fprintf(&b, "locals {\n  keys = toset([for i in %s : tostring(i)])\n}\nresource \"terraform_data\" \"r\" {\n  for_each = local.keys\n  input    = %s\n}\n", numbers(r.objects), input)
		return b.Bytes()
	}
	for i := range r.objects {
		about := "tenant"
		if changed && i%100 == 0 {
			about = "another tenant"
		}
		fmt.Fprintf(&b, "resource \"terraform_data\" \"r%d\" {\n  input = \"%s %d\"\n", i, about, i)
		if before := r.before(i); before >= 0 {
			fmt.Fprintf(&b, "  depends_on = [terraform_data.r%d]\n", before)
		}
		b.WriteString("}\n")
	}
	return b.Bytes()
}

// before is what the i-th resource depends on, -1 for none.
func (r *rival) before(i int) int {
	if r.shape != shapeLayered {
		return -1
	}
	return i - max(1, r.objects/layers)
}

// settle writes the state that an apply would have left. An apply itself takes
// Terraform minutes.
func (r *rival) settle() error {
	type m = map[string]any
	instance := func(i int, key any) m {
		text := m{"value": fmt.Sprintf("tenant %d", i), "type": "string"}
		one := m{"schema_version": 0, "sensitive_attributes": []any{},
			"attributes": m{"id": fmt.Sprintf("00000000-0000-4000-8000-%012d", i), "input": text, "output": text, "triggers_replace": nil}}
		if key != nil {
			one["index_key"] = key
		}
		var needs []string // all of them, as Terraform keeps it, not only the next
		for at := r.before(i); at >= 0; at = r.before(at) {
			needs = append(needs, fmt.Sprintf("terraform_data.r%d", at))
		}
		if needs != nil {
			one["dependencies"] = needs
		}
		return one
	}
	resource := func(name string) m {
		return m{"mode": "managed", "type": "terraform_data", "name": name, "provider": `provider["terraform.io/builtin/terraform"]`}
	}
	var resources []m
	if r.shape == shapeForEach {
		one := resource("r")
		one["each"] = "map"
		var instances []m
		for i := range r.objects {
			instances = append(instances, instance(i, fmt.Sprint(i)))
		}
		one["instances"] = instances
		resources = append(resources, one)
	} else {
		for i := range r.objects {
			one := resource(fmt.Sprintf("r%d", i))
			one["instances"] = []m{instance(i, nil)}
			resources = append(resources, one)
		}
	}
	text, err := json.Marshal(m{"version": 4, "terraform_version": r.version, "serial": 1, "lineage": "00000000-0000-4000-8000-00000000beef", "outputs": m{}, "resources": resources})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, "terraform.tfstate"), text, 0o600)
}

// plan has Terraform plan once. want is what its last words have to say.
func (r *rival) plan(ctx context.Context, want string) (cost, error) {
	var out bytes.Buffer
	c, err := spend(r.command(ctx, "plan", "-input=false", "-no-color"), &out)
	if err == nil && !strings.Contains(out.String(), want) {
		err = errors.New("terraform plan doesn't say " + want)
	}
	return c, err
}

// apply has Terraform make everything.
func (r *rival) apply(ctx context.Context) (cost, error) {
	var out bytes.Buffer
	c, err := spend(r.command(ctx, "apply", "-auto-approve", "-input=false", "-no-color"), &out)
	if want := fmt.Sprintf("Apply complete! Resources: %d added", r.objects); err == nil && !strings.Contains(out.String(), want) {
		err = errors.New("terraform apply doesn't say " + want)
	}
	return c, err
}
