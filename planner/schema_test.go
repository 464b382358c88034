package planner

import (
	"reflect"
	"testing"

	"github.com/clusterplan/clusterplan/internal/jsonschematest"
)

// A change writes itself; its fields are the schema's all the same.
func TestChangeHasSchema(t *testing.T) {
	if err := jsonschematest.Struct("plan", reflect.TypeFor[changeJSON](), "$defs", "change"); err != nil {
		t.Error(err)
	}
}
