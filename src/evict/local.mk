# evict
