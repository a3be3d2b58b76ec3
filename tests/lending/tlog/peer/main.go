// A second reader and writer of our log, built on golang.org/x/mod/sumdb, which knows nothing of ours.
//
//	peer read  FOLDER VKEY      verify an exported folder: signature, every tile, leaf, inclusion and consistency
//	peer write FOLDER COUNT     write a folder of COUNT made-up entries, signed by a fixed key; prints its verifier key
//	peer prove VKEY PROOF ENTRY verify one tlog-proof file, the entry in ENTRY
//
// Standard output is one JSON object. Paths follow c2sp.org/tlog-tiles, which differ from the package's by the
// height, which is left out, and by the name of the level that holds entries.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func tilePath(t tlog.Tile) string {
	path := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", height))
	return filepath.Join("tile", strings.Replace(path, "data/", "entries/", 1))
}

type folder struct {
	root string
	size int64
}

func (f folder) Height() int                         { return height }
func (f folder) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		data, err := os.ReadFile(filepath.Join(f.root, tilePath(t)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (f folder) entries() ([][]byte, error) {
	var all [][]byte
	for n := int64(0); n<<height < f.size; n++ {
		width := f.size - n<<height
		if width > 1<<height {
			width = 1 << height
		}
		data, err := os.ReadFile(filepath.Join(f.root, tilePath(tlog.Tile{H: height, L: -1, N: n, W: int(width)})))
		if err != nil {
			return nil, err
		}
		for i := int64(0); i < width; i++ {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				return nil, fmt.Errorf("bundle %d: cut in entry %d", n, i)
			}
			end := 2 + int(binary.BigEndian.Uint16(data))
			all, data = append(all, data[2:end]), data[end:]
		}
		if len(data) != 0 {
			return nil, fmt.Errorf("bundle %d: %d bytes too many", n, len(data))
		}
	}
	return all, nil
}

func openCheckpoint(data []byte, vkey string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() || lines[3] != "" {
		return tlog.Tree{}, errors.New("checkpoint: not three lines, or of another origin")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, err
}

func read(root, vkey string) (map[string]interface{}, error) {
	data, err := os.ReadFile(filepath.Join(root, "checkpoint"))
	if err != nil {
		return nil, err
	}
	tree, err := openCheckpoint(data, vkey)
	if err != nil {
		return nil, err
	}
	log := folder{root, tree.N}
	entries, err := log.entries()
	if err != nil {
		return nil, err
	}
	// Every tile must be what its hashes below it come to, also those that no proof asks for.
	storage := tlog.TileHashReader(tree, log)
	var own []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, i := range indexes {
			found = append(found, own[i])
		}
		return found, nil
	})
	for n, entry := range entries {
		more, err := tlog.StoredHashes(int64(n), entry, reader)
		if err != nil {
			return nil, err
		}
		own = append(own, more...)
	}
	root2, err := tlog.TreeHash(tree.N, reader)
	if err != nil || root2 != tree.Hash {
		return nil, fmt.Errorf("entries do not hash to the checkpoint (%v)", err)
	}
	tiles := 0
	for level := 0; tree.N>>(height*level) > 0; level++ {
		for n := int64(0); n<<height < tree.N>>(height*level); n++ {
			width := tree.N>>(height*level) - n<<height
			if width > 1<<height {
				width = 1 << height
			}
			t := tlog.Tile{H: height, L: level, N: n, W: int(width)}
			want, err := tlog.ReadTileData(t, reader)
			if err != nil {
				return nil, err
			}
			got, err := os.ReadFile(filepath.Join(root, tilePath(t)))
			if err != nil || !bytes.Equal(got, want) {
				return nil, fmt.Errorf("tile %s is not what its entries hash to (%v)", tilePath(t), err)
			}
			tiles++
		}
	}
	for n, entry := range entries {
		proof, err := tlog.ProveRecord(tree.N, int64(n), storage)
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, int64(n), tlog.RecordHash(entry)); err != nil {
			return nil, err
		}
	}
	for old := int64(1); old <= tree.N; old++ {
		proof, err := tlog.ProveTree(tree.N, old, storage)
		if err != nil {
			return nil, err
		}
		hash, err := tlog.TreeHash(old, storage)
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old, hash); err != nil {
			return nil, err
		}
	}
	return map[string]interface{}{"entries": len(entries), "tiles": tiles, "root": tree.Hash.String()}, nil
}

func write(root string, count int) (map[string]interface{}, error) {
	signer, verifier, err := key()
	if err != nil {
		return nil, err
	}
	var own []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, i := range indexes {
			found = append(found, own[i])
		}
		return found, nil
	})
	bundles := map[int64][]byte{}
	for n := 0; n < count; n++ {
		entry := []byte(fmt.Sprintf("entry %d", n))
		more, err := tlog.StoredHashes(int64(n), entry, reader)
		if err != nil {
			return nil, err
		}
		own = append(own, more...)
		var size [2]byte
		binary.BigEndian.PutUint16(size[:], uint16(len(entry)))
		bundles[int64(n)>>height] = append(append(bundles[int64(n)>>height], size[:]...), entry...)
	}
	put := func(t tlog.Tile, data []byte) error {
		path := filepath.Join(root, tilePath(t))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o644)
	}
	for level := 0; count>>(height*level) > 0; level++ {
		for n := int64(0); n<<height < int64(count>>(height*level)); n++ {
			width := int64(count>>(height*level)) - n<<height
			if width > 1<<height {
				width = 1 << height
			}
			t := tlog.Tile{H: height, L: level, N: n, W: int(width)}
			data, err := tlog.ReadTileData(t, reader)
			if err == nil {
				err = put(t, data)
			}
			if err == nil && level == 0 {
				err = put(tlog.Tile{H: height, L: -1, N: n, W: int(width)}, bundles[n])
			}
			if err != nil {
				return nil, err
			}
		}
	}
	hash, err := tlog.TreeHash(int64(count), reader)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", signer.Name(), count, hash)
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return nil, err
	}
	var inclusion, consistency []string
	record, err := tlog.ProveRecord(int64(count), int64(count/3), reader)
	if err != nil {
		return nil, err
	}
	for _, h := range record {
		inclusion = append(inclusion, h.String())
	}
	tree, err := tlog.ProveTree(int64(count), int64(count/2), reader)
	if err != nil {
		return nil, err
	}
	for _, h := range tree {
		consistency = append(consistency, h.String())
	}
	old, err := tlog.TreeHash(int64(count/2), reader)
	if err != nil {
		return nil, err
	}
	return map[string]interface{}{
		"vkey": verifier, "root": hash.String(), "inclusion": inclusion, "consistency": consistency, "old": old.String(),
	}, os.WriteFile(filepath.Join(root, "checkpoint"), signed, 0o644)
}

func key() (note.Signer, string, error) {
	skey, vkey, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64)), "peer.example/log")
	if err != nil {
		return nil, "", err
	}
	signer, err := note.NewSigner(skey)
	return signer, vkey, err
}

func prove(vkey, proofFile, entryFile string) (map[string]interface{}, error) {
	data, err := os.ReadFile(proofFile)
	if err != nil {
		return nil, err
	}
	entry, err := os.ReadFile(entryFile)
	if err != nil {
		return nil, err
	}
	head, checkpoint := data, []byte(nil)
	if i := bytes.Index(data, []byte("\n\n")); i >= 0 {
		head, checkpoint = data[:i], data[i+2:]
	}
	lines := strings.Split(string(head), "\n")
	if lines[0] != "c2sp.org/tlog-proof@v1" || len(lines) < 2 {
		return nil, errors.New("proof: another header")
	}
	lines = lines[1:]
	if strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64)
	if err != nil {
		return nil, err
	}
	var path tlog.RecordProof
	for _, line := range lines[1:] {
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != tlog.HashSize {
			return nil, errors.New("proof: not a hash")
		}
		var hash tlog.Hash
		copy(hash[:], raw)
		path = append(path, hash)
	}
	tree, err := openCheckpoint(checkpoint, vkey)
	if err != nil {
		return nil, err
	}
	if err := tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return nil, err
	}
	return map[string]interface{}{"index": index, "size": tree.N}, nil
}

func main() {
	var result map[string]interface{}
	err := errors.New("usage: peer read|write|prove ...")
	args := os.Args[1:]
	switch {
	case len(args) == 3 && args[0] == "read":
		result, err = read(args[1], args[2])
	case len(args) == 3 && args[0] == "write":
		count, bad := strconv.Atoi(args[2])
		if bad == nil {
			result, err = write(args[1], count)
		}
	case len(args) == 4 && args[0] == "prove":
		result, err = prove(args[1], args[2], args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(result)
}
