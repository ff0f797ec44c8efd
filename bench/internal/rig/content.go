package rig

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
)

// Content returns size bytes that are the same each time for a kind and a seed.
func Content(kind string, seed uint64, size int64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	random := rand.NewChaCha8(key)
	if kind == "text" {
		return io.LimitReader(newProse(rand.New(random)), size)
	}
	return io.LimitReader(random, size)
}

// A prose reads as endless pages of words, few of them often and most of them
// rarely, with some numbers: it compresses as text does, and does not repeat.
type prose struct {
	random *rand.Rand
	words  []string
	left   []byte // of what was made
	buffer []byte
}

func newProse(random *rand.Rand) *prose {
	p := &prose{random: random, words: make([]string, 4096)}
	for i := range p.words {
		word := make([]byte, 2+random.IntN(9))
		for j := range word {
			word[j] = "eeetaaoinsrhldcumfpgwybvkxjqz"[random.IntN(29)]
		}
		p.words[i] = string(word)
	}
	return p
}

// Read never fails.
func (p *prose) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		p.buffer = p.paragraph(p.buffer[:0])
		p.left = p.buffer
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

func (p *prose) paragraph(b []byte) []byte {
	b = append(b, "<p id=\""...)
	for range 8 {
		b = append(b, "0123456789abcdef"[p.random.IntN(16)])
	}
	b = append(b, "\">"...)
	for range 60 + p.random.IntN(60) {
		u := p.random.Float64()
		b = append(b, p.words[int(u*u*u*float64(len(p.words)))]...)
		b = append(b, ' ')
	}
	return append(b, "</p>\n"...)
}
