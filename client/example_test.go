package client_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/clusterplan/clusterplan/client"
)

// A program that runs in a group asks where it is. On a node client.Config{} is
// all that it needs: the agent has set CLUSTERPLAN_SOCKET, CLUSTERPLAN_GROUP and
// CLUSTERPLAN_EPOCH.
func ExampleNew() {
	socket, stop := standIn() // of the agent
	defer stop()
	c, err := client.New(client.Config{Socket: socket, Group: "web", Epoch: 7})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	self, err := c.Self(ctx)
	if err != nil {
		log.Fatal(err)
	}
	owner, err := c.Owner(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("group %s runs on %s under epoch %d; I am on %s\n", owner.Group, owner.Owner, owner.Epoch, self.Node)
	// Output: group web runs on n1 under epoch 7; I am on n1
}

// A counter that several programs of a group may raise at once: Update begins
// again whenever another was faster.
func ExampleSpace_Update() {
	c, stop := connect(7)
	defer stop()
	for range 3 {
		e, err := c.Group("").Update(context.Background(), "starts", func(e client.Entry) ([]byte, error) {
			n, _ := strconv.Atoi(string(e.Value)) // 0 where there is none yet
			return []byte(strconv.Itoa(n + 1)), nil
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s = %s\n", e.Key, e.Value)
	}
	// Output:
	// starts = 1
	// starts = 2
	// starts = 3
}

// A lock that only one can take, by compare-and-swap.
func ExampleSpace_Create() {
	c, stop := connect(7)
	defer stop()
	ctx, keys := context.Background(), c.Group("")
	for _, who := range []string{"anna", "bert"} {
		_, err := keys.Create(ctx, "lock", []byte(who))
		switch {
		case err == nil:
			fmt.Println(who, "has the lock")
		case errors.Is(err, client.ErrChanged):
			fmt.Println(who, "has to wait")
		default:
			log.Fatal(err)
		}
	}
	// Output:
	// anna has the lock
	// bert has to wait
}

// A program that was stopped for a while writes under the epoch that it was
// started under: once another node owns the group, nothing of it gets through.
func ExampleSpace_Fenced() {
	c, stop := connect(6) // the group is at epoch 7 by now
	defer stop()
	_, err := c.Group("").Fenced(c.Epoch()).Put(context.Background(), "position", []byte("12"))
	fmt.Println(errors.Is(err, client.ErrFenced))
	// Output: true
}

// Listing keys, and the revision that a Watch goes on from.
func ExampleSpace_List() {
	c, stop := connect(7)
	defer stop()
	ctx, keys := context.Background(), c.Group("")
	for _, k := range []string{"job/1", "job/2"} {
		if _, err := keys.Put(ctx, k, []byte("new")); err != nil {
			log.Fatal(err)
		}
	}
	list, revision, err := keys.List(ctx, "job/")
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range list {
		fmt.Printf("%s: %s\n", e.Key, e.Value)
	}
	fmt.Println("watch from revision", revision)
	// Output:
	// job/1: new
	// job/2: new
	// watch from revision 2
}

// connect is a client of the stand-in, started under an epoch.
func connect(epoch uint64) (*client.Client, func()) {
	socket, stop := standIn()
	c, err := client.New(client.Config{Socket: socket, Group: "web", Epoch: epoch})
	if err != nil {
		log.Fatal(err)
	}
	return c, func() { c.Close(); stop() }
}

// standIn is a very small agent on a Unix socket: n1, which owns group web under
// epoch 7.
func standIn() (socket string, stop func()) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	socket = filepath.Join(dir, "group.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	type entry struct {
		value    []byte
		revision int
	}
	var mu sync.Mutex
	revision, keys, order := 0, map[string]entry{}, []string{}
	refuse := func(w http.ResponseWriter, status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"status":%d,"code":%q,"message":%q}`, status, code, code)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/self", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"name":"n1","membership":"voter","leader":"n2","quorum":true,"group":"web"}`)
	})
	mux.HandleFunc("GET /v1/groups/web/owner", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"group":"web","owner":"n1","epoch":7,"state":"online","here":true,"lease":true}`)
	})
	mux.HandleFunc("GET /v1/kv/group/web/{key}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		e, ok := keys[r.PathValue("key")]
		if !ok {
			refuse(w, http.StatusNotFound, "not_found")
			return
		}
		w.Header().Set("ETag", strconv.Quote(strconv.Itoa(e.revision)))
		_, _ = w.Write(e.value)
	})
	mux.HandleFunc("PUT /v1/kv/group/web/{key}", func(w http.ResponseWriter, r *http.Request) {
		value, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		key := r.PathValue("key")
		e, ok := keys[key]
		match := r.Header.Get("If-Match")
		switch epoch := r.Header.Get("Clusterplan-Epoch"); {
		case epoch != "" && epoch != "7":
			refuse(w, http.StatusConflict, "fenced")
			return
		case ok && r.Header.Get("If-None-Match") == "*", match != "" && match != strconv.Itoa(e.revision):
			refuse(w, http.StatusPreconditionFailed, "precondition")
			return
		}
		if !ok {
			order = append(order, key)
		}
		revision++
		keys[key] = entry{value, revision}
		fmt.Fprintf(w, `{"revision":%d}`, revision)
	})
	mux.HandleFunc("GET /v1/kv/group/web", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, `{"revision":%d,"entries":[`, revision)
		for i, k := range order {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, `{"key":%q,"value":%q,"revision":%d}`, k, base64.StdEncoding.EncodeToString(keys[k].value), keys[k].revision)
		}
		fmt.Fprint(w, `]}`)
	})
	server := httptest.NewUnstartedServer(mux)
	server.Listener.Close()
	server.Listener = l
	server.Start()
	return socket, func() { server.Close(); os.RemoveAll(dir) }
}
