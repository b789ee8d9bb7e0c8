# Completions for cmlpack, cmlfs and cmlrun in fish.
set -l pack info ls cat extract verify describe diff flatten unflatten
complete -c cmlpack -n "not __fish_seen_subcommand_from $pack" -f -a "$pack"
complete -c cmlpack -n "__fish_seen_subcommand_from info ls verify describe diff" -l json -d 'print JSON'
complete -c cmlpack -n "__fish_seen_subcommand_from ls" -s l -l long -d 'sizes and offsets'
complete -c cmlpack -n "__fish_seen_subcommand_from ls" -s R -l recursive -d 'folders within folders too'
complete -c cmlpack -n "__fish_seen_subcommand_from ls" -l data -r -d 'external data of a .pte'
complete -c cmlpack -n "__fish_seen_subcommand_from describe" -l text -l dot -l svg
complete -c cmlpack -n "__fish_seen_subcommand_from flatten" -l align -x -d 'alignment of files'
complete -c cmlpack -n "__fish_seen_subcommand_from flatten" -l name -x -d 'name of the root'
set -l fs mount umount
complete -c cmlfs -n "not __fish_seen_subcommand_from $fs" -f -a "$fs"
complete -c cmlfs -n "__fish_seen_subcommand_from mount" -s f -l foreground -d 'stay in the foreground'
complete -c cmlfs -n "__fish_seen_subcommand_from mount" -s o -l options -x -d 'mount options'
set -l runs predict describe bench verify trace compare
complete -c cmlrun -n "not __fish_seen_subcommand_from $runs" -f -a "$runs"
complete -c cmlrun -n "__fish_seen_subcommand_from predict" -s i -l input -r -d 'arrays or a picture'
complete -c cmlrun -n "__fish_seen_subcommand_from predict" -s o -l output -r -d 'where the outputs go'
complete -c cmlrun -n "__fish_seen_subcommand_from $runs" -l method -x -d 'method of a .pte'
complete -c cmlrun -n "__fish_seen_subcommand_from $runs" -l function -x -d 'function of the model'
