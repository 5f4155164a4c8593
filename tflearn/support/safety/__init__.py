"""Checks that stand in front of every file that others may have made.

Each looks at what a file claims, names, sizes and counts, before anything of that size
is allocated, followed or extracted, and ends in a `FileError` that names the file.
Nothing here runs what a file holds; the checks cost milliseconds.

| module | what |
|---|---|
| `zips` | members of a zip archive: names, repetitions, declared sizes |
| `tars` | members of a tar archive: links, devices, holes, sizes |
| `arrays` | `.npz` files, read without pickle |
| `hdf5` | links, foreign storage, shapes and filters in HDF5 files |
| `tensors` | headers of safetensors files |
| `json_files` | JSON of bounded size and depth |
| `labels` | the `labels.json` of runs |
| `preset_files` | all files of a preset's folder |
| `keras_files` | `.keras` archives and the configurations of layers in JSON |
"""
